//! The RPM package, installed by a real `rpm` with a database of its own.
//!
//! The machine is a Debian, so what the package needs is there without its `rpm` knowing (`--nodeps`).

use anyhow::{Result, ensure};

use super::checks::left_behind;
use super::machine::Machine;

/// `rpm`, which takes nothing of the machine's own.
const RPM: &str = "/mnt/rpm/bin/rpm --dbpath /run/rpmdb";

/// Paths with who owns them, their modes, and whether they are a configuration that is kept when changed.
const FILES: [(&str, &str, &str); 6] = [
    ("/usr/bin/schedscope", "root:root 755", ""),
    ("/etc/schedscope.toml", "root:root 644", "cn"),
    (
        "/usr/lib/systemd/system/schedscope.service",
        "root:root 644",
        "",
    ),
    ("/usr/lib/sysusers.d/schedscope.conf", "root:root 644", ""),
    ("/usr/lib/tmpfiles.d/schedscope.conf", "root:root 644", ""),
    ("/usr/share/man/man1/schedscope-run.1", "root:root 644", "d"),
];

pub(super) fn installs(machine: &Machine) -> Result<()> {
    // Without what the other package has left, which a purge leaves alone.
    machine.run(&format!(
        "userdel schedscope; rm -rf /run/schedscope-root /etc/schedscope /var/lib/schedscope\n\
         mkdir /run/rpmdb; {RPM} -i --nodeps /mnt/schedscope.rpm"
    ))?;
    // Every file as it was packed: size, digest, mode, owner, group, time.
    let changed = machine.run(&format!("{RPM} -V --nodeps schedscope || true"))?;
    ensure!(changed.is_empty(), "not as in the package: {changed}");
    let listed = machine.run(&format!(
        "{RPM} -q --qf '[%{{FILENAMES}} %{{FILEFLAGS:fflags}}\\n]' schedscope"
    ))?;
    for (path, access, flags) in FILES {
        let found = machine.run(&format!("stat -c '%U:%G %a' {path}"))?;
        ensure!(found.trim() == access, "{path}: {found}");
        ensure!(
            listed.lines().any(|line| line == format!("{path} {flags}")),
            "{path} with the flags {flags:?}: {listed}"
        );
    }
    // What the scripts do: a user, a directory to mount on, and what presets say.
    machine.run(
        "getent passwd schedscope; test -d /run/schedscope-root\n\
         systemctl is-enabled schedscope; if systemctl is-active schedscope; then exit 1; fi\n\
         systemctl start schedscope",
    )?;
    machine.until(
        10,
        "systemctl show -p StatusText schedscope | grep Watching",
    )?;
    machine.run("timeout 3 systemctl stop schedscope")?;
    let found = machine.run("systemctl show -p Result -p ExecMainStatus schedscope")?;
    ensure!(
        found.contains("Result=success") && found.contains("ExecMainStatus=0"),
        "{found}"
    );
    Ok(())
}

pub(super) fn goes(machine: &Machine) -> Result<()> {
    machine.run(&format!(
        "systemctl start schedscope; {RPM} -e schedscope\n\
         if systemctl is-active schedscope; then exit 1; fi\n\
         if systemctl is-enabled schedscope; then exit 1; fi\n\
         test -z \"$({RPM} -qa)\""
    ))?;
    left_behind(machine)
}
