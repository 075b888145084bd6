//! The files for clusters and images, read by what reads them there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

/// A directory of this test's own.
fn scratch(name: &str) -> PathBuf {
    let dir = env::temp_dir().join(format!("xtask-manifests-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).expect("the temporary directory can be written");
    dir
}

/// The program of this name among those that read manifests; says that the test is not run if there is none.
fn reader(test: &str, name: &str) -> Option<PathBuf> {
    let found = env::var_os("SCHEDSCOPE_MANIFESTS").map(|dir| PathBuf::from(dir).join(name));
    if found.is_none() {
        println!("not run: {test}: no SCHEDSCOPE_MANIFESTS, which `cargo xtask test` sets");
    }
    found
}

/// What kustomize makes; says that the test is not run if there is none.
fn kustomized(test: &str) -> Option<String> {
    let Some(kubectl) = env::var_os("SCHEDSCOPE_KUBECTL") else {
        println!("not run: {test}: no SCHEDSCOPE_KUBECTL, which `cargo xtask test` sets");
        return None;
    };
    let made = Command::new(kubectl)
        .arg("kustomize")
        .arg(deploy("kubernetes"))
        .output()
        .expect("it starts");
    let complaint = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{complaint}");
    Some(String::from_utf8(made.stdout).expect("text"))
}

/// Both ends of what its schemas are there for.
fn versions(validate: &Path) -> Vec<String> {
    let site = validate.with_file_name("site");
    let schemas = site.join("kubernetes_validate/kubernetes-json-schema");
    let mut versions: Vec<String> = fs::read_dir(schemas)
        .expect("its schemas")
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Some(name.strip_suffix("-local-strict")?.to_owned())
        })
        .collect();
    versions.sort();
    assert!(!versions.is_empty());
    versions
}

fn validate(program: &Path, version: &str, file: &Path) -> Output {
    Command::new(program)
        .arg(version)
        .arg(file)
        .output()
        .expect("it starts")
}

/// What it said of a file, of which it took all these.
fn accepted(program: &Path, file: &Path, resources: &[&str]) {
    for version in versions(program) {
        let found = validate(program, &version, file);
        let said = String::from_utf8_lossy(&found.stdout).into_owned()
            + &String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "{version}: {said}");
        for resource in resources {
            let line = |line: &&str| line.contains("passed") && line.contains(resource);
            assert!(
                said.lines().any(|its| line(&its)),
                "{version}: {resource}: {said}"
            );
        }
    }
}

#[test]
fn kubernetes_takes_the_manifests() {
    let Some(program) = reader("manifests::kubernetes_takes_the_manifests", "validate") else {
        return;
    };
    accepted(
        &program,
        &deploy("kubernetes/daemonset.yaml"),
        &["daemonset/schedscope"],
    );
    accepted(
        &program,
        &deploy("kubernetes/namespace.yaml"),
        &["namespace/schedscope"],
    );
}

#[test]
fn kubernetes_takes_what_kustomize_makes() {
    const TEST: &str = "manifests::kubernetes_takes_what_kustomize_makes";
    let (Some(program), Some(made)) = (reader(TEST, "validate"), kustomized(TEST)) else {
        return;
    };
    let file = scratch("kustomize").join("made.yaml");
    fs::write(&file, &made).expect("written");
    accepted(
        &program,
        &file,
        &[
            "namespace/schedscope",
            "configmap/schedscope-",
            "daemonset/schedscope",
        ],
    );
    // All is in the namespace, has the image's version, and reads the configuration that was made beside it.
    let image = format!("image: schedscope:{}", env!("CARGO_PKG_VERSION"));
    assert!(made.contains(&image), "{image} in {made}");
    let map = made
        .lines()
        .find_map(|line| line.trim().strip_prefix("name: schedscope-"))
        .expect("a name with the sum of its content");
    let uses = made.matches(&format!("name: schedscope-{map}")).count();
    assert_eq!(uses, 2, "{made}");
    assert_eq!(made.matches("namespace: schedscope").count(), 2, "{made}");
}

/// That the two above could fail.
#[test]
fn kubernetes_refuses_what_is_wrong() {
    let Some(program) = reader("manifests::kubernetes_refuses_what_is_wrong", "validate") else {
        return;
    };
    let right = fs::read_to_string(deploy("kubernetes/daemonset.yaml")).expect("it is there");
    let dir = scratch("wrong");
    for (number, (line, wrong)) in [
        ("hostPID: true", "hostPID: \"yes\""),
        ("hostPID: true", "hostPid: true"),
        ("containerPort: 9750", "containerPort: many"),
        ("drop: [ALL]", "drop: ALL"),
        (
            "hostPath: {path: /var/log/pods}",
            "hostPath: {paths: /var/log/pods}",
        ),
        ("  selector:\n", "  select:\n"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(right.contains(line), "{line}");
        let file = dir.join(format!("{number}.yaml"));
        fs::write(&file, right.replacen(line, wrong, 1)).expect("written");
        for version in versions(&program) {
            let found = validate(&program, &version, &file);
            assert!(!found.status.success(), "{version} takes {wrong}");
        }
    }
}

/// By Docker's own parser: that what is copied is there, and that the command line is ours.
#[test]
fn docker_reads_the_image_s_instructions() {
    let Some(program) = reader(
        "manifests::docker_reads_the_image_s_instructions",
        "dockerfile",
    ) else {
        return;
    };
    let read = |file: &Path| Command::new(&program).arg(file).output().expect("starts");
    let found = read(&deploy("container/Dockerfile"));
    let complaint = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "{complaint}");
    let text = String::from_utf8(found.stdout).expect("text");
    let instructions: Vec<Vec<String>> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a list"))
        .collect();
    let named = |name: &str| {
        let these = instructions.iter().filter(move |its| its[0] == name);
        these.map(|its| its[1..].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(named("FROM").len(), 2, "{text}");
    assert_eq!(named("ENTRYPOINT"), [["/usr/bin/schedscope"]]);
    let [command] = &named("CMD")[..] else {
        panic!("one command in {text}");
    };
    assert_eq!(command[0], "run", "{text}");
    for copied in named("COPY") {
        let from_other_stage = copied.iter().any(|part| part.starts_with("--from="));
        for source in copied.iter().filter(|part| !part.starts_with("--")) {
            let in_checkout = deploy("..").join(source);
            assert!(
                from_other_stage || source.starts_with('/') || in_checkout.exists(),
                "{source} in {text}"
            );
        }
    }
    let wrong = scratch("docker").join("Dockerfile");
    fs::write(&wrong, "FROM scratch\nENV name\n").expect("written");
    assert!(!read(&wrong).status.success(), "it takes anything");
}

/// The image starts what it says with a configuration that is there, and the pod's is mounted where it looks.
#[test]
fn the_pod_s_configuration_is_where_its_command_looks() {
    let text = fs::read_to_string(deploy("kubernetes/daemonset.yaml")).expect("it is there");
    let arguments = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("args: "))
        .expect("a command line");
    let arguments: Vec<Value> = serde_json::from_str(arguments).expect("a list");
    let config = arguments.last().and_then(Value::as_str).expect("a path");
    let (directory, file) = config.rsplit_once('/').expect("a directory");
    assert!(
        text.contains(&format!("mountPath: {directory},")),
        "{directory}"
    );
    assert!(deploy("kubernetes").join(file).is_file(), "{file}");
}
