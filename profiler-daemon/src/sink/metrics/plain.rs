//! OpenMetrics text in the words of the older Prometheus text format (0.0.4), which is what `promtool`,
//! older scrapers and a plain `curl` ask for.

use std::fmt::Write as _;

/// Translates. The two differ in their comments only: the older one gives a counter's and an info's
/// family the name of its series, knows no info and no unit, and has no mark at the end.
#[must_use]
pub fn from_openmetrics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // HELP comes before TYPE, and only TYPE says what the family is called here.
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            if let Some(help) = help.take() {
                let _ = writeln!(plain, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(plain, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::from_openmetrics;

    #[test]
    fn only_the_comments_differ() {
        let openmetrics = "\
# HELP a_seconds Time of \"a\".
# TYPE a_seconds counter
# UNIT a_seconds seconds
a_seconds_total{x=\"# TYPE b\\n\"} 1.5
# HELP b B.
# TYPE b info
b_info{v=\"1\"} 1
# HELP c C.
# TYPE c gauge
c 2
# EOF
";
        let plain = "\
# HELP a_seconds_total Time of \"a\".
# TYPE a_seconds_total counter
a_seconds_total{x=\"# TYPE b\\n\"} 1.5
# HELP b_info B.
# TYPE b_info gauge
b_info{v=\"1\"} 1
# HELP c C.
# TYPE c gauge
c 2
";
        assert_eq!(from_openmetrics(openmetrics), plain);
    }
}
