//! Any text as a configuration, and as what flags give in its place.

use std::path::Path;

use schedscope::daemon::config::flags::parse_target;
use schedscope::daemon::config::{
    Config, Overrides, Target, parse_clock, parse_drain_interval, parse_id, parse_listen,
    parse_max_units, parse_records, parse_stacks, parse_stats_interval, parse_window,
};
use schedscope::daemon::trigger::Condition;

/// Takes the bytes as the text of a file, and as values of flags.
///
/// # Panics
///
/// If reading it does; if an error names no line of the text; or if what is shown of a value is not that value.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(text, Path::new("x.toml")) {
        Ok(config) => {
            let specs: Vec<_> = config.targets.iter().map(Target::spec).collect();
            assert!(
                specs
                    .iter()
                    .all(|spec| !spec.name.contains(char::is_control))
            );
            let again = config.clone().apply(Overrides::default());
            assert_eq!(again.expect("no flag says anything"), config);
        }
        Err(error) => {
            let message = error.to_string();
            let rest = message.strip_prefix("x.toml:").expect("it names the file");
            let (line, _) = rest.split_once(": ").expect("and the line");
            let line: usize = line.parse().expect("by its number");
            assert!(
                line >= 1 && line <= text.lines().count().max(1) + 1,
                "{message}"
            );
            assert_eq!(message.lines().count(), 1, "{message:?}");
        }
    }
    flags(text);
}

fn flags(text: &str) {
    if let Ok(listen) = parse_listen(text) {
        assert_eq!(parse_listen(&listen.to_string()).as_ref(), Ok(&listen));
    }
    if let Ok(condition) = text.parse::<Condition>() {
        assert_eq!(condition.to_string().parse(), Ok(condition));
    }
    if let Ok(target) = parse_target(text) {
        assert!(text.starts_with(&target.name));
    }
    let _ = (parse_records(text), parse_clock(text), parse_id(text));
    let _ = (parse_stats_interval(text), parse_stacks(text));
    let _ = (
        parse_drain_interval(text),
        parse_window(text),
        parse_max_units(text),
    );
}
