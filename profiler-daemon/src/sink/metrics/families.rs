//! All series of a scrape, between what they are made from and the formats.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::catalogue::{self, Metric, Type};
use super::exemplars::Exemplars;
use super::native::Native;
use super::{buckets, seconds};
use crate::core::LatencyHistogram;

/// All series of a scrape, family by family.
#[derive(Debug, Default)]
pub(super) struct Families {
    series: HashMap<&'static str, Vec<Series>>,
    /// When what is pushed from now on began to count, in nanoseconds since 1970.
    pub(super) created_unix_ns: u64,
}

#[derive(Debug)]
pub(super) struct Series {
    /// In the order of the metric's labels.
    pub(super) labels: Vec<String>,
    pub(super) value: Value,
    /// When it began to count, in nanoseconds since 1970.
    pub(super) created_unix_ns: u64,
}

#[derive(Debug)]
pub(super) enum Value {
    Count(u64),
    Float(f64),
    Histogram {
        sum: f64,
        count: u64,
        /// Upper bounds with the counts between each and the one before.
        buckets: Vec<(f64, u64)>,
        native: Native,
        exemplars: Exemplars,
    },
    One,
}

impl Families {
    /// The series of a metric.
    pub(super) fn of(&self, metric: &Metric) -> &[Series] {
        self.series.get(metric.name).map_or(&[], Vec::as_slice)
    }

    fn push(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        self.series.entry(metric.name).or_default().push(Series {
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            value,
            created_unix_ns: self.created_unix_ns,
        });
    }

    pub(super) fn count(&mut self, metric: &'static Metric, labels: &[&str], count: u64) {
        self.push(metric, labels, Value::Count(count));
    }

    pub(super) fn seconds(
        &mut self,
        metric: &'static Metric,
        labels: &[&str],
        ns: impl Into<u128>,
    ) {
        self.push(metric, labels, Value::Float(seconds(ns)));
    }

    pub(super) fn gauge(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.push(metric, labels, Value::Float(value));
    }

    pub(super) fn info(&mut self, metric: &'static Metric, labels: &[&str]) {
        self.push(metric, labels, Value::One);
    }

    /// A histogram, classic and native at once.
    pub(super) fn histogram(
        &mut self,
        metric: &'static Metric,
        label: &str,
        of: &LatencyHistogram,
        schema: i32,
        exemplars: Exemplars,
    ) {
        let bounds = buckets::BOUNDS_NS.iter().map(|&ns| seconds(ns));
        let buckets = bounds.chain([f64::INFINITY]).zip(buckets::counts(of));
        let value = Value::Histogram {
            sum: seconds(of.sum_ns()),
            count: of.count(),
            buckets: buckets.collect(),
            native: Native::new(of, schema),
            exemplars,
        };
        self.push(metric, &[label], value);
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in catalogue::CATALOGUE {
            let series = self.of(metric);
            if series.is_empty() {
                continue;
            }
            let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = match metric.kind {
                Type::Counter => MetricType::Counter,
                Type::Gauge => MetricType::Gauge,
                Type::Histogram => MetricType::Histogram,
                Type::Info => MetricType::Info,
            };
            let mut family =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            for series in series {
                encode_series(&mut family, metric, series)?;
            }
        }
        Ok(())
    }
}

fn encode_series(family: &mut MetricEncoder<'_>, metric: &Metric, series: &Series) -> fmt::Result {
    let names = metric.labels.iter().map(|label| label.name);
    let labels: Vec<(&str, &str)> = names
        .zip(series.labels.iter().map(String::as_str))
        .collect();
    let labels = labels.as_slice();
    if let Value::One = series.value {
        return family.encode_info(&labels);
    }
    // A series without labels has no braces.
    if labels.is_empty() {
        encode_value(family, metric.kind, &series.value)
    } else {
        encode_value(
            &mut family.encode_family(&labels)?,
            metric.kind,
            &series.value,
        )
    }
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Type, value: &Value) -> fmt::Result {
    match (value, kind) {
        (Value::Count(count), Type::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(count, None)
        }
        (Value::Float(value), Type::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
        }
        (Value::Count(count), _) => encoder.encode_gauge(count),
        (Value::Float(value), _) => encoder.encode_gauge(value),
        (
            Value::Histogram {
                sum,
                count,
                buckets,
                ..
            },
            _,
        ) => encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
        (Value::One, _) => encoder.encode_gauge(&1u64),
    }
}
