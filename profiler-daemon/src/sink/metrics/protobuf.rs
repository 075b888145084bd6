//! The protobuf form of the metrics (`io.prometheus.client.MetricFamily`, delimited), the only one that has
//! native histograms.
//!
//! The messages are those of `io/prometheus/client/metrics.proto` in
//! <https://github.com/prometheus/client_model>, as far as they are used: kept by hand, so that no build
//! needs the compiler of the format.

use prost::Message;

use super::catalogue::{CATALOGUE, Metric as CatalogueMetric, Type};
use super::exemplars::LongOne;
use super::families::{Families, Series, Value};
use super::native::{Native, ZERO_THRESHOLD};

/// A name and a value.
#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// The value of a gauge.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Gauge {
    /// It.
    #[prost(double, tag = "1")]
    pub value: f64,
}

/// A time since 1970 (`google.protobuf.Timestamp`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Timestamp {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest, in nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The value of a counter.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Counter {
    /// It.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// When it was zero.
    #[prost(message, optional, tag = "3")]
    pub created: Option<Timestamp>,
}

/// One observation.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// What it was.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// Its value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// When.
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Timestamp>,
}

/// A classic bucket.
#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    /// Of all values up to the bound.
    #[prost(uint64, tag = "1")]
    pub cumulative_count: u64,
    /// The bound, inclusive.
    #[prost(double, tag = "2")]
    pub upper_bound: f64,
    /// One of them.
    #[prost(message, optional, tag = "3")]
    pub exemplar: Option<Exemplar>,
}

/// Native buckets without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct BucketSpan {
    /// Buckets between the end of the span before and this one; the first one's number.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// A histogram, classic and native at once.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Observations.
    #[prost(uint64, tag = "1")]
    pub sample_count: u64,
    /// Their sum.
    #[prost(double, tag = "2")]
    pub sample_sum: f64,
    /// Classic buckets, rising.
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    /// Each power of two is cut in 2 to the power of this many native buckets.
    #[prost(sint32, tag = "5")]
    pub schema: i32,
    /// What is not above this is in the bucket of zeros.
    #[prost(double, tag = "6")]
    pub zero_threshold: f64,
    /// How many those are.
    #[prost(uint64, tag = "7")]
    pub zero_count: u64,
    /// Where the native buckets are.
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    /// The count of each less that of the one before.
    #[prost(sint64, repeated, tag = "13")]
    pub positive_delta: Vec<i64>,
    /// When it was empty.
    #[prost(message, optional, tag = "15")]
    pub created: Option<Timestamp>,
}

/// One series.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// The value of a gauge.
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    /// Or of a counter.
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    /// Or of a histogram.
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

/// All series of a name.
#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it means.
    #[prost(string, tag = "2")]
    pub help: String,
    /// 0 a counter, 1 a gauge, 4 a histogram.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    /// The series.
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const HISTOGRAM: i32 = 4;

/// All families, one after another, each behind its length.
pub(super) fn encode(families: &Families) -> Vec<u8> {
    let mut out = Vec::new();
    for metric in CATALOGUE {
        let series = families.of(metric);
        if !series.is_empty() {
            // A vector grows as need be.
            let _ = family(metric, series).encode_length_delimited(&mut out);
        }
    }
    out
}

/// Reads what [`encode`](super::Exporter::protobuf) wrote.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<MetricFamily>, prost::DecodeError> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut bytes)?);
    }
    Ok(families)
}

fn family(metric: &CatalogueMetric, series: &[Series]) -> MetricFamily {
    MetricFamily {
        // As the text formats have the series: Prometheus takes the name as it is.
        name: metric.series(),
        help: format!("{}.", metric.help),
        kind: match metric.kind {
            Type::Counter => COUNTER,
            Type::Gauge | Type::Info => GAUGE,
            Type::Histogram => HISTOGRAM,
        },
        metric: series.iter().map(|series| one(metric, series)).collect(),
    }
}

fn one(metric: &CatalogueMetric, series: &Series) -> Metric {
    let labels = metric.labels.iter().zip(&series.labels);
    let mut message = Metric {
        label: labels
            .map(|(label, value)| pair(label.name, value))
            .collect(),
        ..Metric::default()
    };
    let created = Some(timestamp(series.created_unix_ns));
    let value = match &series.value {
        Value::Histogram {
            sum,
            count,
            buckets,
            native,
            exemplars,
        } => {
            let mut histogram = with_native(native);
            histogram.sample_count = *count;
            histogram.sample_sum = *sum;
            histogram.created = created;
            let mut cumulative_count = 0;
            histogram.bucket = buckets
                .iter()
                .enumerate()
                .map(|(place, &(upper_bound, count))| {
                    cumulative_count += count;
                    let exemplar = exemplars.iter().find(|(its, _)| *its == place);
                    Bucket {
                        cumulative_count,
                        upper_bound,
                        exemplar: exemplar.map(|(_, long)| exemplar_of(long)),
                    }
                })
                .collect();
            message.histogram = Some(histogram);
            return message;
        }
        Value::Count(count) => *count as f64,
        Value::Float(value) => *value,
        Value::One => 1.0,
    };
    if metric.kind == Type::Counter {
        message.counter = Some(Counter { value, created });
    } else {
        message.gauge = Some(Gauge { value });
    }
    message
}

fn pair(name: &str, value: &str) -> LabelPair {
    LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn exemplar_of(long: &LongOne) -> Exemplar {
    let labels = long.labels.iter();
    Exemplar {
        label: labels.map(|(name, value)| pair(name, value)).collect(),
        value: long.seconds,
        timestamp: Some(timestamp(long.unix_ns)),
    }
}

fn timestamp(unix_ns: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(unix_ns / 1_000_000_000).unwrap_or(0),
        nanos: i32::try_from(unix_ns % 1_000_000_000).unwrap_or(0),
    }
}

/// The native part.
fn with_native(native: &Native) -> Histogram {
    let mut histogram = Histogram {
        schema: native.schema,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: native.zeros,
        ..Histogram::default()
    };
    let (mut end, mut before) = (0, 0);
    for &(number, count) in &native.buckets {
        match histogram.positive_span.last_mut() {
            Some(span) if number == end => span.length += 1,
            _ => histogram.positive_span.push(BucketSpan {
                offset: number - end,
                length: 1,
            }),
        }
        end = number + 1;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        histogram.positive_delta.push(count - before);
        before = count;
    }
    histogram
}
