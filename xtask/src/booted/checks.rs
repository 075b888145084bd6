//! What has to hold of the package and the service, each in turn and each building on those before.

use anyhow::{Context, Result, ensure};

use super::machine::Machine;
use super::{neighbours, rpm};

/// What the service can see, read and write is found out by this.
const TRIAL: &str = include_str!("trial.sh");

/// A name, and what is done.
pub(super) type Check = (&'static str, fn(&Machine) -> Result<()>);

/// All, in their order.
pub(super) const CHECKS: [Check; 14] = [
    ("the package installs and the service starts", installs),
    ("nothing but what is needed is kept of privileges", gives_up),
    ("systemd-analyze rates it 2.0 or better", is_rated),
    (
        "the sandbox shows and allows only what the unit lists",
        is_shut_in,
    ),
    ("a real Prometheus scrapes it", is_scraped),
    (
        "a unit that slows another is named, with what it took",
        neighbours::are_named,
    ),
    (
        "a reload takes a new configuration and refuses a wrong one",
        reloads,
    ),
    ("the watchdog starts a stuck service anew", is_watched),
    (
        "it serves on a Unix socket, and on one that systemd opens",
        serves_on_sockets,
    ),
    (
        "its flight recorder writes to its directory and nowhere else",
        records,
    ),
    ("it stops at once", stops),
    ("the package goes without a trace", goes),
    (
        "the RPM package installs, and its service starts and stops",
        rpm::installs,
    ),
    ("the RPM package goes without a trace", rpm::goes),
];

fn installs(machine: &Machine) -> Result<()> {
    machine.run("dpkg -i /mnt/*.deb")?;
    machine.run("systemctl is-active schedscope")?;
    machine.run("systemctl is-enabled schedscope")?;
    machine.run("getent passwd schedscope")?;
    for file in [
        "/etc/schedscope.toml",
        "/usr/share/man/man1/schedscope-run.1.gz",
        "/usr/share/bash-completion/completions/schedscope",
    ] {
        machine.run(&format!("test -s {file}"))?;
    }
    let status = machine.until(
        10,
        "systemctl show -p StatusText schedscope | grep Watching",
    )?;
    ensure!(status.contains("0 events lost"), "{status}");
    Ok(())
}

fn gives_up(machine: &Machine) -> Result<()> {
    let script = format!("{PID}; cat /proc/$pid/task/*/status");
    let status = machine.run(&script)?;
    let values = |name: &'static str| {
        let lines = status
            .lines()
            .filter_map(move |line| line.strip_prefix(name));
        lines.map(str::trim)
    };
    let threads = values("CapEff:").count();
    ensure!(threads >= 3, "{threads} threads: {status}");
    // CAP_PERFMON and CAP_BPF (include/uapi/linux/capability.h), which kernels before 5.19 ask for.
    let allowed = if kernel_is_new(machine)? {
        0
    } else {
        1 << 38 | 1 << 39
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        for value in values(set) {
            let value = u64::from_str_radix(value, 16).context("a set of capabilities")?;
            ensure!(value & !allowed == 0, "{set} {value:x}");
        }
    }
    ensure!(values("NoNewPrivs:").all(|value| value == "1"), "{status}");
    ensure!(values("Seccomp:").all(|value| value == "2"), "{status}");
    ensure!(
        !values("Uid:").any(|ids| ids.split_whitespace().any(|id| id == "0")),
        "it runs as root: {status}"
    );
    Ok(())
}

/// Whether this is Linux 5.19 or newer.
fn kernel_is_new(machine: &Machine) -> Result<bool> {
    let release = machine.run("uname -r")?;
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    Ok(version >= (Some(5), Some(19)))
}

fn is_rated(machine: &Machine) -> Result<()> {
    let text = machine.run("systemd-analyze security --no-pager schedscope")?;
    let rating = text
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for schedscope.service: "))
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok())
        .with_context(|| format!("no rating in {text}"))?;
    println!("  exposure {rating}");
    ensure!(rating <= 2.0, "{rating}: {text}");
    Ok(())
}

fn is_shut_in(machine: &Machine) -> Result<()> {
    // The service's own unit runs the trial, with a shell and its companions let in.
    machine.run(&format!(
        "cat >/run/trial.sh <<'TRIAL'\n{TRIAL}TRIAL\n\
         echo hidden >/etc/schedscope/secret; chmod 600 /etc/schedscope/secret\n\
         unit=/run/systemd/system/schedscope-trial.service; mkdir -p $unit.d\n\
         cp /lib/systemd/system/schedscope.service $unit\n\
         cat >$unit.d/trial.conf <<'UNIT'\n\
         [Service]\nType=oneshot\nExecStart=\nExecStart=/usr/bin/bash /trial.sh\nWatchdogSec=0\n\
         Restart=no\nBindReadOnlyPaths=/run/trial.sh:/trial.sh /usr/bin/bash /usr/bin/rm\n\
         ExecPaths=+/usr/bin/bash +/usr/bin/rm\nStandardOutput=file:/run/trial.inside\nUNIT\n\
         systemctl daemon-reload; systemctl start schedscope-trial\n\
         bash /run/trial.sh >/run/trial.outside 2>&1"
    ))?;
    let outside = machine.run("cat /run/trial.outside")?;
    // That the trial finds something where there is something to find.
    ensure!(
        outside.lines().count() > 20,
        "outside of the sandbox only: {outside}"
    );
    machine.run("rm -f /tmp/left-behind /var/tmp/left-behind /run/left-behind")?;
    machine.run("systemctl start schedscope-trial")?;
    let inside = machine.run("cat /run/trial.inside")?;
    ensure!(
        inside.trim() == "tried all\ntried all" || inside.trim() == "tried all",
        "from inside: {inside}"
    );
    machine.run(
        "for place in /tmp /var/tmp /run; do if test -e $place/left-behind; then exit 1; fi; done",
    )?;
    let script =
        format!("{PID}; cd /proc/$pid/root; ls / . | sort -u >/dev/null; ls . etc usr usr/bin");
    println!("  it sees: {}", words(&machine.run(&script)?));
    machine.run("rm -r /run/systemd/system/schedscope-trial.service*; systemctl daemon-reload")?;
    Ok(())
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_scraped(machine: &Machine) -> Result<()> {
    machine.run(
        "cat >/run/prometheus.yml <<'YAML'\n\
         scrape_configs:\n- job_name: schedscope\n  scrape_interval: 1s\n  static_configs:\n\
         \x20 - targets: ['127.0.0.1:9750']\nYAML\n\
         systemd-run --quiet --unit=prometheus /mnt/prometheus --config.file=/run/prometheus.yml \
         --storage.tsdb.path=/run/prometheus --web.listen-address=127.0.0.1:9090",
    )?;
    for query in [
        "up{job=\"schedscope\"} == 1",
        "sum(rate(schedscope_events_total[10s])) > 0",
        "histogram_quantile(0.99, rate(schedscope_runqueue_delay_seconds_bucket{target=\"host\"}[10s])) > 0",
        "sum(schedscope_thread_time_seconds_total{target=\"host\",state=\"running\"}) > 0",
    ] {
        let answer = machine.until(
            20,
            &format!("/mnt/promtool query instant http://127.0.0.1:9090 '{query}' | grep -- '=>'"),
        )?;
        println!("  {}", words(&answer));
    }
    let complaints = machine.run(&format!(
        "{} | /mnt/promtool check metrics 2>&1 || true",
        get("/metrics")
    ))?;
    ensure!(
        complaints.is_empty(),
        "promtool check metrics: {complaints}"
    );
    Ok(())
}

/// A script that prints what the service has under a path.
fn get(path: &str) -> String {
    format!(
        "(exec 3<>/dev/tcp/127.0.0.1/9750; \
         printf 'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
         sed '1,/^\\r$/d' <&3)"
    )
}

fn reloads(machine: &Machine) -> Result<()> {
    let before = machine.run(PROCESS)?;
    machine.run(
        "printf '[[target]]\\nname = \"db\"\\ncomm = \"prometheus\"\\n' >>/etc/schedscope.toml\n\
         systemctl reload schedscope",
    )?;
    let has_target = format!(
        "{} | grep -q 'schedscope_threads{{target=\"db\"}}'",
        get("/metrics")
    );
    machine.until(10, &has_target)?;
    machine.run("cp /etc/schedscope.toml /run/good; echo 'lisen = 1' >>/etc/schedscope.toml")?;
    machine.run("systemctl reload schedscope")?;
    machine.until(
        10,
        "journalctl -u schedscope --no-pager | grep 'not read again' | grep lisen",
    )?;
    machine.until(5, &has_target)?;
    machine.run("systemctl is-active schedscope; cp /run/good /etc/schedscope.toml")?;
    let after = machine.run(PROCESS)?;
    ensure!(before == after, "process {before} became {after}");
    Ok(())
}

fn is_watched(machine: &Machine) -> Result<()> {
    machine.run(
        "mkdir -p /run/systemd/system/schedscope.service.d\n\
         printf '[Service]\\nWatchdogSec=2s\\nTimeoutAbortSec=1s\\nRestartSec=100ms\\n' \
         >/run/systemd/system/schedscope.service.d/quick.conf\n\
         systemctl daemon-reload; systemctl restart schedscope",
    )?;
    let first = machine.run(PROCESS)?;
    // Longer than the limit: signs of life come.
    machine.run("sleep 4")?;
    ensure!(
        machine.run(PROCESS)? == first,
        "it was started anew though it lives"
    );
    machine.run(&format!("{PID}; kill -STOP $pid"))?;
    machine.until(
        15,
        "test \"$(systemctl show -p NRestarts --value schedscope)\" -ge 1\n\
         systemctl is-active schedscope",
    )?;
    ensure!(machine.run(PROCESS)? != first, "it is the same process");
    machine.run("journalctl -u schedscope --no-pager | grep -i 'watchdog timeout'")?;
    machine.run("rm -r /run/systemd/system/schedscope.service.d; systemctl daemon-reload")?;
    Ok(())
}

fn serves_on_sockets(machine: &Machine) -> Result<()> {
    machine.run(
        "cp /etc/schedscope.toml /run/tcp.toml\n\
         sed -i '1i listen = \"unix:/run/schedscope/http.sock\"' /etc/schedscope.toml\n\
         systemctl restart schedscope",
    )?;
    let client = "use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(\"/run/schedscope/http.sock\") or die $!; \
                  print $s \"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n\"; \
                  print <$s>;";
    let answer = machine.run(&format!("perl -e '{client}'"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Started by the first connection, not before.
    machine.run(
        "systemctl stop schedscope; sed -i '1s/.*/listen = \"systemd\"/' /etc/schedscope.toml\n\
         printf '[Socket]\\nListenStream=127.0.0.1:9750\\n' >/run/systemd/system/schedscope.socket\n\
         systemctl daemon-reload; systemctl start schedscope.socket\n\
         if systemctl is-active schedscope; then exit 1; fi",
    )?;
    machine.run(&format!(
        "{} | grep -q ^schedscope_events_total",
        get("/metrics")
    ))?;
    machine.run(
        "systemctl is-active schedscope; systemctl stop schedscope.socket schedscope\n\
         rm /run/systemd/system/schedscope.socket; systemctl daemon-reload\n\
         cp /run/tcp.toml /etc/schedscope.toml; systemctl start schedscope",
    )?;
    Ok(())
}

fn records(machine: &Machine) -> Result<()> {
    machine.run(
        "cp /etc/schedscope.toml /run/without.toml\n\
         sed -i 's/^#last = .*/last = \"5s\"/' /etc/schedscope.toml\n\
         systemctl restart schedscope; sleep 1",
    )?;
    let post = "exec 3<>/dev/tcp/127.0.0.1/9750; \
                printf 'POST /api/v1/recordings HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";
    let answer = machine.run(post)?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    machine.run(
        "schedscope report /var/lib/schedscope/schedscope-*.sched --output json >/run/flight.json\n\
         test \"$(stat -c '%U %a' /var/lib/schedscope)\" = 'schedscope 700'\n\
         test \"$(stat -c '%U %a' /var/lib/schedscope/*.sched)\" = 'schedscope 600'",
    )?;
    // Elsewhere it can't write, and says so before it measures for nothing.
    machine.run(
        "sed -i 's|^#directory = .*|directory = \"/etc/schedscope\"|' /etc/schedscope.toml\n\
         if systemctl restart schedscope; then exit 1; fi\n\
         journalctl -u schedscope --no-pager | grep 'give flight_recorder.directory a place'\n\
         cp /run/without.toml /etc/schedscope.toml\n\
         systemctl reset-failed schedscope; systemctl restart schedscope",
    )?;
    Ok(())
}

fn stops(machine: &Machine) -> Result<()> {
    machine.run("systemctl restart schedscope; timeout 3 systemctl stop schedscope")?;
    let found = machine.run("systemctl show -p Result -p ExecMainStatus schedscope")?;
    ensure!(
        found.contains("Result=success") && found.contains("ExecMainStatus=0"),
        "{found}"
    );
    // There is a target by now, so the names of kernel functions were wanted.
    let journal = machine.run("journalctl -u schedscope --no-pager")?;
    ensure!(!journal.contains("no names"), "{journal}");
    machine.run("systemctl start schedscope; systemctl is-active schedscope")?;
    Ok(())
}

fn goes(machine: &Machine) -> Result<()> {
    machine.run("dpkg -P schedscope")?;
    machine.run("if systemctl is-active schedscope; then exit 1; fi")?;
    left_behind(machine)
}

/// Nothing of the package is left that is the package's own.
pub(super) fn left_behind(machine: &Machine) -> Result<()> {
    let left = machine.run(
        "find / -xdev -name '*schedscope*' -not -path '/proc/*' -not -path '/tmp/*' \
         -not -path '/var/log/*'",
    )?;
    // Directories and links that a configuration may still refer to are the administrator's, and so are
    // recordings.
    ensure!(
        left.lines().all(|path| path.starts_with("/etc/schedscope")
            || path.starts_with("/run/schedscope-root")
            || path.starts_with("/var/lib/schedscope")
            || path.starts_with("/var/tmp/")),
        "left behind: {left}"
    );
    Ok(())
}

/// Has `pid` be the service's process.
const PID: &str = "pid=$(systemctl show -p MainPID --value schedscope)";

/// Prints it.
const PROCESS: &str = "systemctl show -p MainPID --value schedscope";
