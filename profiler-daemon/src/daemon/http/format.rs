//! Which of the formats of the metrics a client gets.

/// A format of the metrics; of two that a client likes the same it gets the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    /// Prometheus protobuf, the only one with native histograms.
    Protobuf,
    /// OpenMetrics text.
    OpenMetrics,
    /// The older Prometheus text, which every reader understands.
    Plain,
}

impl Format {
    /// What is said in `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What a client likes best that accepts this. Who names none of them (`*/*`, or nothing at all) gets
    /// the plain one.
    pub(super) fn preferred(accept: &str) -> Self {
        let wishes = accept.split(',').filter_map(wish);
        let best = wishes.max_by(|(left, a), (right, b)| a.total_cmp(b).then(right.cmp(left)));
        best.map_or(Self::Plain, |(format, _)| format)
    }
}

/// What one range of an `Accept` asks for, and how much, if anything.
fn wish(range: &str) -> Option<(Format, f64)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut quality = 1.0;
    let (mut version, mut proto, mut encoding) = (None, None, None);
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            // What is not a number is not a wish.
            "q" => quality = value.parse().unwrap_or(0.0),
            "version" => version = Some(value),
            "proto" => proto = Some(value),
            "encoding" => encoding = Some(value),
            _ => {}
        }
    }
    let format = match kind.as_str() {
        "application/vnd.google.protobuf"
            if proto == Some("io.prometheus.client.MetricFamily")
                && encoding == Some("delimited") =>
        {
            Format::Protobuf
        }
        "application/openmetrics-text" if version.is_none_or(|version| version == "1.0.0") => {
            Format::OpenMetrics
        }
        "text/plain" | "text/*" | "*/*" => Format::Plain,
        _ => return None,
    };
    (quality > 0.0).then_some((format, quality))
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn the_format_is_what_the_client_likes_best() {
        use Format::{OpenMetrics, Plain, Protobuf};
        for (accept, expected) in [
            ("", Plain),
            ("*/*", Plain),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Plain),
            ("text/plain;version=0.0.4", Plain),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
                OpenMetrics,
            ),
            ("application/openmetrics-text;version=0.0.1", Plain),
            ("application/openmetrics-text;q=0", Plain),
            ("application/openmetrics-text;q=x", Plain),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.5", Plain),
            ("application/vnd.google.protobuf", Plain),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=text",
                Plain,
            ),
            // Prometheus 2.42 and 3.0.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
                 escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            // Prometheus 2.42 with native histograms.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                 application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
                 */*;q=0.1",
                Protobuf,
            ),
        ] {
            assert_eq!(Format::preferred(accept), expected, "{accept}");
        }
    }
}
