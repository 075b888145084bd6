//! The configuration file: its defaults, its documentation, its errors, and the flags over it.

mod support;

use std::path::Path;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _, Parser as _};
use schedscope::daemon::config::keys::{self, KEYS};
use schedscope::daemon::config::{ClockChoice, Config, ConfigError, Overrides, Target, Threads};
use support::expect_file;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("x.toml"))
}

#[track_caller]
fn error(text: &str, expected: &str) {
    match parse(text) {
        Ok(config) => panic!("{text:?} was taken: {config:?}"),
        Err(error) => {
            let message = error.to_string();
            assert_eq!(message, expected, "for {text:?}");
            assert_eq!(message.lines().count(), 1, "one line");
        }
    }
}

/// The default file with every setting switched on.
fn uncommented() -> String {
    keys::default_file()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
            _ => line,
        })
        .map(|line| line.to_owned() + "\n")
        .collect()
}

#[test]
fn the_default_file_and_its_documentation_are_up_to_date() {
    expect_file("../deploy/schedscope.toml", &keys::default_file());
    expect_file("../docs/configuration.md", &keys::document());
}

#[test]
fn the_default_file_says_the_defaults() {
    let as_shipped = parse(&keys::default_file()).expect("the default file is valid");
    assert_eq!(as_shipped, Config::default());
    let text = uncommented();
    assert!(text.contains("\nlisten = \"127.0.0.1:9750\"\n"), "{text}");
    let mut switched_on = parse(&text).expect("its settings are valid");
    let targets: Vec<Threads> = switched_on
        .targets
        .drain(..)
        .map(|target| target.threads)
        .collect();
    assert_eq!(switched_on, Config::default());
    assert_eq!(
        targets,
        [
            Threads::Pid(1234),
            Threads::Tid(1234),
            Threads::Comm("nginx*".to_owned())
        ]
    );
}

#[test]
fn the_table_of_keys_has_all_keys_and_no_other() {
    // Every key in turn is set to something of a wrong type: the error must name it, which shows
    // that the deserializer knows it.
    for key in KEYS {
        let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
        let text = match section {
            "" => format!("{name} = []"),
            "target" if name == "name" => "[[target]]\nname = []\npid = 1".to_owned(),
            "target" => format!("[[target]]\nname = \"a\"\n{name} = []"),
            _ => format!("[{section}]\n{name} = []"),
        };
        let message = parse(&text)
            .expect_err("a list is nowhere right")
            .to_string();
        assert!(
            message.contains(&format!("{}: invalid type", key.path)),
            "{message}"
        );
        let documented = keys::document().contains(&format!("\n## `{}`\n", key.path));
        assert!(documented, "{}", key.path);
    }
    // The deserializer itself names all that it knows when it meets a stranger.
    let known = toml::from_str::<Config>("stranger = 1")
        .expect_err("unknown")
        .to_string();
    for name in [
        "listen",
        "web",
        "ring",
        "probes",
        "drain",
        "metrics",
        "units",
        "flight_recorder",
        "target",
    ] {
        assert!(known.contains(name), "{known}");
    }
    assert_eq!(
        known.matches('`').count(),
        20,
        "nine sections and the stranger: {known}"
    );
}

#[test]
fn each_key_has_its_flag() {
    let command = Overrides::augment_args(clap::Command::new("run"));
    let flags: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|argument| {
            let help = argument.get_help().map(ToString::to_string);
            Some((format!("--{}", argument.get_long()?), help?))
        })
        .collect();
    for key in KEYS {
        let help = flags.iter().find(|(flag, _)| flag == key.flag);
        let Some((_, help)) = help else {
            panic!("{} is no flag", key.flag);
        };
        // What attach does by default is not the service's.
        let differs = matches!(key.path, "probes.wakeups" | "probes.wakers");
        if !key.path.starts_with("target.") && !differs {
            let value = Some(key.value.trim_matches('"')).filter(|value| !value.is_empty());
            let default = format!("[default: {}]", value.unwrap_or("none"));
            assert!(help.contains(&default), "{}: {help}", key.flag);
        }
    }
    for (flag, _) in &flags {
        assert!(KEYS.iter().any(|key| key.flag == flag), "{flag} has no key");
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    error(
        "lisen = \"127.0.0.1:1\"",
        "x.toml:1: unknown key `lisen`; did you mean `listen`?",
    );
    error(
        "\n[ring]\n\nrecord_per_cpus = 64\n",
        "x.toml:4: unknown key `ring.record_per_cpus`; did you mean `ring.records_per_cpu`?",
    );
    error(
        "records_per_cpu = 64",
        "x.toml:1: unknown key `records_per_cpu`; did you mean `ring.records_per_cpu`?",
    );
    error(
        "[rings]\n",
        "x.toml:1: unknown key `rings`; did you mean `ring`?",
    );
    error(
        "[[target]]\nname = \"a\"\npid = 1\n[[target]]\nname = \"b\"\ncom = \"x\"\n",
        "x.toml:6: unknown key `target.com`; did you mean `target.comm`?",
    );
    error(
        "colour = \"blue\"\n",
        "x.toml:1: unknown key `colour`; known keys: listen, web.config, ring.records_per_cpu, probes.wakeups, \
         probes.reasons, probes.wakers, probes.stacks, \
         probes.clock, probes.stats_interval, drain.max_interval, metrics.window, units.max, flight_recorder.last, \
         flight_recorder.directory, flight_recorder.max_memory, flight_recorder.files, flight_recorder.when, \
         target.name, target.pid, target.tid, target.comm",
    );
}

#[test]
fn wrong_values_are_named_with_what_was_expected() {
    error(
        "# a\nlisten = 9750",
        "x.toml:2: listen: invalid type: integer `9750`, expected a string with an IP address and a \
         port, such as \"127.0.0.1:9750\"",
    );
    error(
        "listen = \"localhost\"",
        "x.toml:1: listen: expected an IP address and a port such as \"127.0.0.1:9750\" or \
         \"[::1]:9750\", \"unix:/PATH\", or \"systemd\", found \"localhost\"",
    );
    error(
        "[ring]\nrecords_per_cpu = 1000",
        "x.toml:2: ring.records_per_cpu: expected a power of two from 64 to 1048576, found 1000",
    );
    error(
        "ring.records_per_cpu = -1",
        "x.toml:1: ring.records_per_cpu: expected a power of two from 64 to 1048576, found -1",
    );
    error(
        "[probes]\nwakeups = \"yes\"",
        "x.toml:2: probes.wakeups: invalid type: string \"yes\", expected a boolean",
    );
    error(
        "[probes]\nclock = \"tsc\"",
        "x.toml:2: probes.clock: expected \"auto\", \"run-queue\" or \"monotonic\", found \"tsc\"",
    );
    error(
        "[probes]\nstats_interval = \"60\"",
        "x.toml:2: probes.stats_interval: expected a duration from \"1s\" to \"1day\", or \"0s\" for \
         never, found \"60\"",
    );
    error(
        "[drain]\nmax_interval = \"1h\"",
        "x.toml:2: drain.max_interval: expected a duration from \"1ms\" to \"10s\", such as \"500ms\", \
         found \"1h\"",
    );
    error(
        "ring = 5",
        "x.toml:1: ring: invalid type: integer `5`, expected a table",
    );
}

#[test]
fn targets_are_checked() {
    let target = |rest: &str| format!("[[target]]\nname = \"a\"\n{rest}\n");
    error(
        &target(""),
        "x.toml:1: target: target \"a\" needs exactly one of pid, tid and comm",
    );
    error(
        &target("pid = 1\ntid = 2"),
        "x.toml:1: target: target \"a\" needs exactly one of pid, tid and comm",
    );
    error(
        &target("pid = 0"),
        "x.toml:3: target.pid: expected a number from 1 to 4194304, found 0",
    );
    error(
        &target("comm = \"a-name-that-is-too-long*\""),
        "x.toml:1: target: no thread can have the name \"a-name-that-is-too-long*\": the kernel keeps \
         15 bytes; shorten it and end it with *",
    );
    error(
        "[[target]]\nname = \"host\"\npid = 1",
        "x.toml:1: target: the name \"host\" stands for the whole host, which is always there; choose \
         another",
    );
    error(
        "[[target]]\npid = 1",
        "x.toml:1: target: missing field `name`",
    );
    error(
        &(target("pid = 1") + &target("pid = 2")),
        "x.toml:5: there are two targets with the name \"a\"; each needs its own",
    );
    let many = (1..=65).fold(String::new(), |many, n| {
        many + "[[target]]\nname = \"n" + &n.to_string() + "\"\npid = 1\n"
    });
    error(
        &many,
        "x.toml:194: more than 64 targets; take fewer, or join several with a comm that fits all",
    );
}

#[test]
fn what_is_no_toml_is_said_to_be_none() {
    error(
        "listen = \"a\nb\"",
        "x.toml:1: this is not TOML: invalid basic string, expected `\"`",
    );
    error(
        "listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"",
        "x.toml:2: this is not TOML: duplicate key",
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let message = Config::load(Path::new("/nonexistent/schedscope.toml"))
        .expect_err("there is no such file")
        .to_string();
    assert_eq!(
        message,
        "can't read the configuration /nonexistent/schedscope.toml: No such file or directory (os \
         error 2); give another one with --config, or none to use the defaults"
    );
    assert!(
        Config::load(Path::new("/dev/zero")).is_err(),
        "an endless file ends"
    );
}

fn flags(arguments: &[&str]) -> Result<Overrides, clap::Error> {
    let command = Overrides::augment_args(clap::Command::new("run").no_binary_name(true));
    Overrides::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

#[test]
fn flags_overrule_the_file() {
    let file =
        "listen = \"127.0.0.1:1\"\n[probes]\nwakeups = true\n[[target]]\nname = \"a\"\npid = 1";
    let file = parse(file).expect("valid");
    let none = flags(&[]).expect("no flags are valid");
    assert_eq!(none, Overrides::default());
    assert_eq!(file.clone().apply(none).expect("nothing changes"), file);
    let all = flags(&[
        "--listen=[::1]:2",
        "--ring-records=64",
        "--wakeups=false",
        "--clock=monotonic",
        "--stats-interval=0s",
        "--drain-interval=20ms",
        "--target=b=comm:x*=y:z",
        "--target=c=tid:7",
    ])
    .expect("valid flags");
    let config = file.clone().apply(all).expect("a valid combination");
    assert_eq!(config.listen.to_string(), "[::1]:2");
    assert_eq!(config.ring.records_per_cpu, 64);
    assert!(!config.probes.wakeups);
    assert_eq!(config.probes.clock, ClockChoice::Monotonic);
    assert_eq!(config.probes.stats_interval, None);
    assert_eq!(config.drain.max_interval, Duration::from_millis(20));
    let names: Vec<&str> = config
        .targets
        .iter()
        .map(|target| target.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(
        config.targets[1].threads,
        Threads::Comm("x*=y:z".to_owned())
    );
    let twice = flags(&["--target=a=pid:2"]).expect("valid by itself");
    let message = file.apply(twice).expect_err("two of one name").to_string();
    assert_eq!(
        message,
        "there are two targets with the name \"a\"; each needs its own"
    );
}

#[test]
fn wrong_flags_say_what_was_expected() {
    for (flag, expected) in [
        ("--listen=x", "expected an IP address and a port"),
        (
            "--ring-records=65",
            "expected a power of two from 64 to 1048576, found 65",
        ),
        (
            "--ring-records=x",
            "expected a power of two from 64 to 1048576, found \"x\"",
        ),
        ("--stats-interval=2", "expected a duration from \"1s\""),
        ("--drain-interval=1us", "expected a duration from \"1ms\""),
        ("--target=a", "expected NAME=KIND:VALUE"),
        (
            "--target=a=uid:5",
            "expected pid, tid or comm before the colon, found \"uid\"",
        ),
        (
            "--target=a=pid:x",
            "expected a number from 1 to 4194304, found \"x\"",
        ),
        ("--target=host=pid:5", "stands for the whole host"),
    ] {
        let message = flags(&[flag]).expect_err("a wrong value").to_string();
        assert!(message.contains(expected), "{flag}: {message}");
    }
}

#[test]
fn a_target_is_given_to_the_core_as_it_was_meant() {
    let target = Target::new("web".to_owned(), Threads::Comm("nginx*".to_owned())).expect("valid");
    let spec = target.spec();
    assert_eq!(spec.name, "web");
    assert!(!spec.per_thread);
    let schedscope::core::Selector::Comm(pattern) = spec.selector else {
        panic!("{spec:?}");
    };
    assert!(pattern.matches("nginx: worker") && !pattern.matches("postgres"));
}

/// What the pods of a cluster run with is taken, by the command line and by the configuration.
#[test]
fn the_pods_start_with_what_they_are_given() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
    let config = Config::load(&deploy.join("schedscope.toml")).expect("it is valid");
    assert_eq!(
        config.probes.stats_interval, None,
        "CAP_SYS_ADMIN isn't given"
    );
    let text = std::fs::read_to_string(deploy.join("daemonset.yaml")).expect("it is there");
    let set: serde_norway::Value = serde_norway::from_str(&text).expect("it is YAML");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let args = container["args"].as_sequence().expect("a list");
    let args = args.iter().map(|word| word.as_str().expect("a string"));
    let cli = schedscope::cli::Cli::try_parse_from(std::iter::once("schedscope").chain(args));
    let schedscope::cli::Command::Run(run) = cli.expect("they are taken").command else {
        panic!("the service is not what they start")
    };
    // It is where the volume is mounted.
    let mounts = container["volumeMounts"].as_sequence().expect("a list");
    let config = mounts
        .iter()
        .find(|mount| mount["name"].as_str() == Some("config"));
    let mounted = config.and_then(|mount| mount["mountPath"].as_str());
    assert_eq!(
        run.config.as_deref().and_then(Path::parent),
        mounted.map(Path::new)
    );
    assert_eq!(pod["hostPID"].as_bool(), Some(true));
    for probe in ["readinessProbe", "livenessProbe"] {
        assert_eq!(
            container[probe]["httpGet"]["port"].as_str(),
            Some("metrics")
        );
    }
}
