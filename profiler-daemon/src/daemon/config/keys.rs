//! Every key of the configuration file, once: the default file and the documentation are made from
//! this table, unknown keys are recognized by it, and tests hold it against [`super::Config`].

use std::fmt::Write as _;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its section and name.
    pub path: &'static str,
    /// Its default, or for a key of a target an example, as TOML.
    pub value: &'static str,
    /// What values it takes.
    pub values: &'static str,
    /// The flag of `schedscope run` that overrules it.
    pub flag: &'static str,
    /// Whether a change takes effect when the file is read again; else it takes a restart.
    pub live: bool,
    /// What it means, and what to mind.
    pub meaning: &'static str,
}

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    Key {
        path: "listen",
        value: "\"127.0.0.1:9750\"",
        values: "IP address and port, \"unix:/PATH\", or \"systemd\"",
        flag: "--listen",
        live: false,
        meaning: "Where metrics, the JSON API and the page are served: on an address, on a Unix socket, or on \
                  the socket that systemd hands over (socket activation). Whoever reaches it may ask, unless \
                  web.config says otherwise: without that, keep to a loopback address or one that only the \
                  monitoring network reaches.",
    },
    Key {
        path: "web.config",
        value: "\"\"",
        values: "path of a file, or \"\" for none",
        flag: "--web-config",
        live: true,
        meaning: "TLS, client certificates and users with hashed passwords, in the form that Prometheus' \
                  exporters use for --web.config.file; docs/http.md has an example. Paths in it are relative \
                  to its directory. SIGHUP reads it and the certificates again.",
    },
    Key {
        path: "ring.records_per_cpu",
        value: "32768",
        values: "power of two, 64 to 1048576",
        flag: "--ring-records",
        live: false,
        meaning: "Records of 32 bytes that each CPU's ring holds: 32768 cost 1 MiB of memory a CPU. \
                  Raise it when schedscope_events_dropped_total grows; time of which records were dropped \
                  is counted as unknown.",
    },
    Key {
        path: "probes.wakeups",
        value: "false",
        values: "true or false",
        flag: "--wakeups",
        live: false,
        meaning: "Record each wakeup, too. Without it a thread that was woken and waits for a CPU is \
                  counted as blocked until it gets one; from then on its figures are exact either way. \
                  It costs a second hook, about as much again as all the rest.",
    },
    Key {
        path: "probes.reasons",
        value: "true",
        values: "true or false",
        flag: "--reasons",
        live: false,
        meaning: "Record why threads wait: the system call of each that blocks, moves between CPUs, and \
                  when CPU quotas are used up. Without it the reason of most waits is unknown, and \
                  throttled time counts as contended. It costs a few nanoseconds a switch.",
    },
    Key {
        path: "probes.wakers",
        value: "false",
        values: "true or false",
        flag: "--wakers",
        live: false,
        meaning: "Record who wakes whom (another thread, a timer, the network, a device), and how long \
                  interrupts kept threads from a CPU. It costs a hook at each wakeup and at both ends of \
                  each interrupt, and makes for twice as many records.",
    },
    Key {
        path: "probes.stacks",
        value: "\"1ms\"",
        values: "duration, 0s (all waits) to 1m, or \"off\"",
        flag: "--stacks",
        live: false,
        meaning: "Of waits of targets that are at least so long the kernel's stack and the kind of file \
                  are taken as they end: with them a read is known to be from a pipe, a socket or a disk. \
                  It costs a hook at each wakeup. Without targets nothing is taken, and the first target \
                  that is added later needs a restart for it.",
    },
    Key {
        path: "probes.clock",
        value: "\"auto\"",
        values: "\"auto\", \"run-queue\" or \"monotonic\"",
        flag: "--clock",
        live: false,
        meaning: "The clock that stamps the records. The run queue's own is nearly free and the one that \
                  the kernel's own figures are in; auto falls back to the monotonic one where the kernel \
                  does not let probes read it. With the monotonic one wakeups are recorded in any case.",
    },
    Key {
        path: "probes.stats_interval",
        value: "\"1m\"",
        values: "duration, 1s to 1day, or 0s for never",
        flag: "--stats-interval",
        live: true,
        meaning: "How often the probes' own cost is sampled, for schedscope_probe_run_seconds_total. While \
                  it is, the kernel times every BPF program on the host, which itself costs some 50 ns a \
                  run.",
    },
    Key {
        path: "drain.max_interval",
        value: "\"1s\"",
        values: "duration, 1ms to 10s",
        flag: "--drain-interval",
        live: true,
        meaning: "Longest time between two drains of the rings. A ring that fills up wakes the daemon \
                  earlier, so this decides how often an idle host is disturbed, and how old the figures \
                  of a scrape can be.",
    },
    Key {
        path: "metrics.window",
        value: "\"1m\"",
        values: "duration, 10s to 10m",
        flag: "--window",
        live: false,
        meaning: "The time that the quantiles of schedscope_runqueue_delay_window_seconds are of. It grows in \
                  steps of 10 s.",
    },
    Key {
        path: "units.max",
        value: "100",
        values: "0 to 1000",
        flag: "--max-units",
        live: false,
        meaning: "Most units (systemd units, containers, pods) that have series of their own; what belongs to \
                  further ones is summed up as \"other\". Each costs some 50 series and at most 100 KiB of memory.",
    },
    Key {
        path: "flight_recorder.last",
        value: "\"0s\"",
        values: "duration, 1s to 1h, or 0s for none",
        flag: "--flight-last",
        live: false,
        meaning: "Keep what happens on the whole host for so long, in memory, and write it to a file on POST \
                  /api/v1/recordings, on SIGUSR1, or when a condition is met: `schedscope report` reads it. What it costs: \
                  docs/recording.md. With probes.wakers the file has who woke whom, too.",
    },
    Key {
        path: "flight_recorder.directory",
        value: "\"/var/lib/schedscope\"",
        values: "path of a directory",
        flag: "--flight-directory",
        live: false,
        meaning: "Where the files are written. The service's unit lets it write to /var/lib/schedscope and nowhere \
                  else. Only the service's user may read them.",
    },
    Key {
        path: "flight_recorder.max_memory",
        value: "\"64M\"",
        values: "size, 8M or more",
        flag: "--flight-max-memory",
        live: false,
        meaning: "Most memory for it: where it is not enough, less time is kept. A storm of a million switches a second \
                  takes some 3 MB a second, a host with 10,000 switches a second 50 kB. As much again and 64 MiB at most \
                  may be on the way.",
    },
    Key {
        path: "flight_recorder.files",
        value: "8",
        values: "1 to 1000",
        flag: "--flight-files",
        live: false,
        meaning: "Most files that are kept; the oldest are removed. Each is at most as large as max_memory and a little \
                  more.",
    },
    Key {
        path: "flight_recorder.when",
        value: "\"\"",
        values: "conditions between commas, or \"\" for none",
        flag: "--flight-when",
        live: false,
        meaning: "When a file is written without being asked for, at most every five seconds: run-queue-delay>TIME (a \
                  thread of a target got a CPU after so long), cpu-wait>TIME or blocked>TIME (one is waiting for so \
                  long for a CPU, or for something else that is not idleness). It takes a [[target]].",
    },
    Key {
        path: "target.name",
        value: "\"web\"",
        values: "1 to 64 bytes, not \"host\", each once",
        flag: "--target",
        live: true,
        meaning: "Name of a target: the label `target` of its series. A thread belongs to the first target \
                  that takes it. At most 64 targets.",
    },
    Key {
        path: "target.pid",
        value: "1234",
        values: "1 to 4194304",
        flag: "--target",
        live: true,
        meaning: "All threads of a process, those to come included. Exactly one of pid, tid and comm.",
    },
    Key {
        path: "target.tid",
        value: "1234",
        values: "1 to 4194304",
        flag: "--target",
        live: true,
        meaning: "One thread.",
    },
    Key {
        path: "target.comm",
        value: "\"nginx*\"",
        values: "name of at most 15 bytes, * and ? as wildcards",
        flag: "--target",
        live: true,
        meaning: "All threads whose own name fits, whatever their process. A thread that once fitted stays \
                  in, whatever it is called later.",
    },
];

const HEAD: &str = "\
# Configuration of `schedscope run`.
#
# Every key stands here with its default, commented out. Flags overrule this file. SIGHUP reads it again;
# a file that is not valid is refused as a whole, with the line, and the service goes on as before. Keys
# that need a restart say so.
# Durations are written like \"500ms\", \"2s\" or \"1m\".
";

const TARGETS: &str = "\
# Targets: each gets the series of the whole host for itself, too. The host is always there, as \"host\".
";

impl Key {
    fn section(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').unwrap_or(("", self.path))
    }
}

/// The default file. Lines that begin with `#` and a letter or bracket are settings; with `# `, prose.
#[must_use]
pub fn default_file() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        let (its_section, name) = key.section();
        if its_section == "target" {
            continue;
        }
        if its_section == section {
            text.push('\n');
        } else {
            section = its_section;
            let _ = write!(text, "\n[{section}]\n");
        }
        push_comment(&mut text, key.meaning);
        let restart = if key.live {
            ""
        } else {
            " A change needs a restart."
        };
        push_comment(&mut text, &format!("Values: {}.{restart}", key.values));
        let _ = writeln!(text, "#{name} = {}", key.value);
    }
    text.push('\n');
    text += TARGETS;
    let targets = KEYS.iter().filter(|key| key.section().0 == "target");
    for key in targets.clone() {
        let (_, name) = key.section();
        push_comment(
            &mut text,
            &format!("* {name}: {} Values: {}.", key.meaning, key.values),
        );
    }
    let (names, selectors): (Vec<&Key>, Vec<&Key>) = targets.partition(|k| k.path == "target.name");
    for (number, selector) in selectors.iter().enumerate() {
        let _ = write!(text, "\n#[[target]]\n");
        for name in &names {
            let example = name.value.trim_matches('"');
            let _ = writeln!(text, "#name = \"{example}-{}\"", number + 1);
        }
        let _ = writeln!(text, "#{} = {}", selector.section().1, selector.value);
    }
    text
}

fn push_comment(text: &mut String, sentence: &str) {
    for line in crate::sink::text::wrap(sentence, 98, 0).lines() {
        let _ = writeln!(text, "# {line}");
    }
}

/// The documentation.
#[must_use]
pub fn document() -> String {
    let mut text = "\
# Configuration

`schedscope run` takes its configuration from a TOML file (`--config FILE`) and from flags, which overrule
the file. All keys are optional; `deploy/schedscope.toml` has them all, commented out.

An unknown key, a wrong type or a value out of its bounds is an error that names the file, the line and
what was expected; the exit code is 2. On SIGHUP the file is read again; if it is not valid, the
service says so and goes on with what it had.

| key | default | values | flag | change takes effect |
|---|---|---|---|---|
"
    .to_owned();
    for key in KEYS {
        let default = match key.section().0 {
            "target" => "none".to_owned(),
            _ => format!("`{}`", key.value),
        };
        let _ = writeln!(
            text,
            "| `{}` | {default} | {} | `{}` | {} |",
            key.path,
            key.values,
            key.flag,
            if key.live {
                "on SIGHUP"
            } else {
                "at the next start"
            }
        );
    }
    for key in KEYS {
        let _ = write!(
            text,
            "\n## `{}`\n\n{}",
            key.path,
            crate::sink::text::wrap(key.meaning, 110, 0)
        );
    }
    text += "\n## Targets\n\nEach `[[target]]` has a `name` and exactly one of `pid`, `tid` and `comm`:\n\n";
    text += "```toml\n[[target]]\nname = \"web\"\ncomm = \"nginx*\"\n```\n\n";
    text += "On the command line: `--target web=comm:nginx*`, as often as needed.\n";
    text
}
