//! What shells complete, with the files that packages install.

use std::path::Path;
use std::process::Command;

const SCHEDSCOPE: &str = env!("CARGO_BIN_EXE_schedscope");

/// Has a real bash complete the last word of a command line.
fn completed_by_bash(words: &[&str]) -> Vec<String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("completions");
    let generated = Command::new(SCHEDSCOPE)
        .arg("generate")
        .arg(&directory)
        .status();
    assert!(generated.expect("it runs").success());
    let script = r#"
        source "$0/schedscope.bash"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_schedscope schedscope "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let folder = Path::new(SCHEDSCOPE).parent().expect("it is in a folder");
    let path = std::env::var("PATH").expect("there is one");
    let output = Command::new("bash")
        .args(["--norc", "-c", script])
        .arg(&directory)
        .args(words)
        .env("PATH", format!("{}:{path}", folder.display()))
        .output()
        .expect("bash is there");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).expect("text");
    stdout.lines().map(str::to_owned).collect()
}

fn own_comm() -> String {
    let comm = std::fs::read_to_string("/proc/self/comm").expect("it is there");
    comm.trim_end().to_owned()
}

#[test]
fn bash_completes_commands_options_and_what_the_host_has() {
    let pid = std::process::id().to_string();
    let attach = completed_by_bash(&["schedscope", "attach", &pid]);
    assert!(attach.contains(&pid), "{attach:?}");
    let prefix = &pid[..1];
    let all = completed_by_bash(&["schedscope", "record", "-o", "x", "--tid", prefix]);
    assert!(all.contains(&pid), "{all:?}");
    assert!(all.iter().all(|its| its.starts_with(prefix)), "{all:?}");
    let comm = own_comm();
    let comms = completed_by_bash(&["schedscope", "attach", "--comm", &comm[..3]]);
    assert!(comms.contains(&comm), "{comms:?}");

    assert_eq!(completed_by_bash(&["schedscope", "att"]), ["attach"]);
    assert_eq!(completed_by_bash(&["schedscope", "exec"]), [""]);
    let options = completed_by_bash(&["schedscope", "report", "--sc"]);
    assert_eq!(options, ["--screen"]);
    let formats = completed_by_bash(&["schedscope", "export", "pp"]);
    assert_eq!(formats, ["pprof"]);
}

#[test]
fn zsh_and_fish_are_told_what_each_process_is_called() {
    let pid = std::process::id().to_string();
    for (shell, between) in [("zsh", ":"), ("fish", "\t")] {
        let output = Command::new(SCHEDSCOPE)
            .args(["--", "schedscope", "attach", &pid])
            .env("SCHEDSCOPE_COMPLETE", shell)
            .env("_CLAP_COMPLETE_INDEX", "2")
            .output()
            .expect("it runs");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = format!("{pid}{between}{}", own_comm());
        assert!(stdout.lines().any(|line| line == told), "{shell}: {stdout}");
    }
}
