//! A directory of manifests, as people and tools change one.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use super::support::{Followed, ingress, secret, service, within};
use fairlead_state::{
    Key, Kind, ObjectRef, SourceHealth,
    source::directory::{Directory, DirectoryOptions, load},
};
use tempfile::TempDir;

fn options(directory: &TempDir) -> DirectoryOptions {
    DirectoryOptions {
        path: directory.path().to_owned(),
        node_name: Some("node-1".into()),
        labels: false,
        always: BTreeSet::new(),
    }
}

/// Writes a file the way most programs do: open, truncate, write, close.
fn write(directory: &TempDir, file: &str, text: &str) {
    fs::write(directory.path().join(file), text).unwrap();
}

async fn follow(directory: &TempDir) -> Followed {
    let mut followed = Followed::start(Directory::new(options(directory)).unwrap(), Kind::ALL);
    followed.until("in sync", |_| true).await;
    followed
}

#[tokio::test]
async fn files_below_the_directory_become_one_snapshot() {
    let directory = TempDir::new().unwrap();
    fs::create_dir_all(directory.path().join("deep/er")).unwrap();
    write(&directory, "a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    write(&directory, "deep/er/c.yml", &service("c", 80));
    write(&directory, "notes.txt", "not a manifest");
    write(&directory, ".hidden.yaml", &service("hidden", 80));
    let followed = follow(&directory).await;
    assert_eq!(followed.services(), ["default/a:80", "default/b:80", "default/c:80"]);
    assert_eq!(followed.newest().revision(), 1, "all of it in one revision");
}

#[tokio::test]
async fn an_empty_directory_is_an_empty_cluster() {
    let directory = TempDir::new().unwrap();
    let mut followed = follow(&directory).await;
    assert!(followed.services().is_empty());
    followed.until_health("in sync", SourceHealth::is_synced).await;
}

#[test]
fn a_missing_directory_is_an_error_naming_it() {
    let path = PathBuf::from("/nonexistent/manifests");
    let options =
        DirectoryOptions { path, node_name: None, labels: false, always: BTreeSet::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { Directory::new(options).unwrap_err() });
    assert_eq!(
        error.to_string(),
        "--manifests /nonexistent/manifests: No such file or directory (os error 2)"
    );
}

/// The contract: written, replaced by rename or removed takes effect within 100 ms.
#[tokio::test]
async fn every_way_to_change_a_file_takes_effect_in_time() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    write(&directory, "a.yaml", &service("a", 80));
    let mut followed = follow(&directory).await;
    let outside = TempDir::new().unwrap();
    write(&outside, "moved", &service("a", 84));
    write(&outside, "linked", &service("e", 85));

    type Step<'a> = (&'a str, Box<dyn Fn() + 'a>, &'a [&'a str]);
    let steps: Vec<Step<'_>> = vec![
        ("written", Box::new(|| write(&directory, "a.yaml", &service("a", 81))), &["default/a:81"]),
        (
            "replaced by rename inside",
            Box::new(|| {
                write(&directory, ".a.tmp", &service("a", 82));
                fs::rename(at(".a.tmp"), at("a.yaml")).unwrap();
            }),
            &["default/a:82"],
        ),
        (
            "added in a new directory",
            Box::new(|| {
                fs::create_dir_all(at("new/deep")).unwrap();
                write(&directory, "new/deep/b.yaml", &service("b", 80));
            }),
            &["default/a:82", "default/b:80"],
        ),
        (
            "changed in that directory",
            Box::new(|| write(&directory, "new/deep/b.yaml", &service("b", 83))),
            &["default/a:82", "default/b:83"],
        ),
        (
            "directory moved out",
            Box::new(|| fs::rename(at("new"), outside.path().join("new")).unwrap()),
            &["default/a:82"],
        ),
        (
            "replaced by rename from outside",
            Box::new(|| fs::rename(outside.path().join("moved"), at("a.yaml")).unwrap()),
            &["default/a:84"],
        ),
        (
            "hard link",
            Box::new(|| fs::hard_link(outside.path().join("linked"), at("e.yaml")).unwrap()),
            &["default/a:84", "default/e:85"],
        ),
        (
            "symbolic link",
            Box::new(|| {
                fs::remove_file(at("e.yaml")).unwrap();
                symlink(outside.path().join("linked"), at("f.yaml")).unwrap();
            }),
            &["default/a:84", "default/e:85"],
        ),
        (
            "renamed to no manifest",
            Box::new(|| fs::rename(at("a.yaml"), at("a.off")).unwrap()),
            &["default/e:85"],
        ),
        ("removed", Box::new(|| fs::remove_file(at("f.yaml")).unwrap()), &[]),
    ];
    for (what, step, expected) in steps {
        step();
        let began = std::time::Instant::now();
        followed.until(what, |followed| followed.services() == expected).await;
        // The promise is 100 ms on a quiet machine; tests share theirs, and what must not be waited for takes 1 s.
        assert!(began.elapsed() < 9 * within(), "{what}: {:?}", began.elapsed());
    }
}

/// As `ln -sfn` and git-sync do it: nothing happens in the directory that was followed.
#[tokio::test]
async fn bug_a_link_to_the_directory_that_was_re_pointed_was_never_noticed() {
    let outer = TempDir::new().unwrap();
    let at = |name: &str| outer.path().join(name);
    for (version, port) in [("v1", 81), ("v2", 82), ("v3", 83)] {
        fs::create_dir_all(at(version).join("deep")).unwrap();
        write(&outer, &format!("{version}/deep/a.yaml"), &service("a", port));
    }
    let point = |version: &str| {
        symlink(version, at(".cur")).unwrap();
        fs::rename(at(".cur"), at("cur")).unwrap();
    };
    for (what, root) in [("the link", "cur"), ("below the link", "cur/deep")] {
        point("v1");
        let options = DirectoryOptions {
            path: at(root),
            node_name: None,
            labels: false,
            always: BTreeSet::new(),
        };
        let mut followed = Followed::start(Directory::new(options).unwrap(), Kind::ALL);
        followed.until(what, |followed| followed.services() == ["default/a:81"]).await;
        point("v2");
        followed.until(what, |followed| followed.services() == ["default/a:82"]).await;
        fs::remove_file(at("cur")).unwrap();
        symlink("v3", at("cur")).unwrap();
        followed.until(what, |followed| followed.services() == ["default/a:83"]).await;
    }
}

#[tokio::test]
async fn a_burst_of_changes_is_one_revision() {
    let directory = TempDir::new().unwrap();
    let mut followed = follow(&directory).await;
    let before = followed.newest().revision();
    for i in 0..50 {
        write(&directory, &format!("{i:02}.yaml"), &service(&format!("s{i:02}"), 80));
    }
    followed.until("all", |followed| followed.services().len() == 50).await;
    let revisions = followed.newest().revision() - before;
    assert!(revisions <= 3, "{revisions} revisions for one burst");
}

/// What is replaced after it was read, but before the reading is over, brings no event after that.
#[tokio::test]
async fn a_file_replaced_while_others_are_read_is_not_missed() {
    let directory = TempDir::new().unwrap();
    // Read after "a", and long enough for it to be replaced meanwhile.
    let slow = |port| -> String {
        (0..400).map(|i| format!("---\n{}", service(&format!("s{i}"), port))).collect()
    };
    let replace = |file: &str, text: &str| {
        write(&directory, "new", text);
        fs::rename(directory.path().join("new"), directory.path().join(file)).unwrap();
    };
    let mut followed = follow(&directory).await;
    for port in 1000..1060 {
        replace("z.yaml", &slow(port));
        tokio::time::sleep(Duration::from_millis(u64::from(port) % 60)).await;
        replace("a.yaml", &service("a", port));
        let last = format!("default/a:{port}");
        followed.until(&last, |followed| followed.services().contains(&last)).await;
    }
}

/// kubelet mounts a ConfigMap as files -> ..data/file, ..data -> ..TIME, and swaps ..data.
#[tokio::test]
async fn a_mounted_config_map_is_swapped_in_one_step() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let version = |name: &str, port| {
        fs::create_dir(at(name)).unwrap();
        write(&directory, &format!("{name}/a.yaml"), &service("a", port));
        write(&directory, &format!("{name}/b.yaml"), &service("b", port));
    };
    version("..one", 80);
    symlink("..one", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    symlink("..data/b.yaml", at("b.yaml")).unwrap();
    let mut followed = follow(&directory).await;
    assert_eq!(followed.services(), ["default/a:80", "default/b:80"]);
    version("..two", 81);
    symlink("..two", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..one")).unwrap();
    followed.until("swapped", |f| f.services() == ["default/a:81", "default/b:81"]).await;
    assert!(followed.newest().refused().is_empty(), "nothing is read twice");
    let mixed =
        |services: &Vec<String>| services.len() != 2 || services[0][9..] != services[1][9..];
    assert_eq!(followed.history().iter().find(|services| mixed(services)), None);
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_its_last_good_content() {
    let directory = TempDir::new().unwrap();
    write(&directory, "a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    let mut followed = follow(&directory).await;
    write(&directory, "a.yaml", &format!("{}---\nkind: [\n", service("a", 81)));
    write(&directory, "c.yaml", &service("c", 80));
    let all = ["default/a:80", "default/b:80", "default/c:80"];
    followed.until("the other file", |followed| followed.services() == all).await;
    let path = directory.path().join("a.yaml").display().to_string();
    followed.until_health("told", |health| !health.problems.is_empty()).await;
    let problems = followed.health().problems;
    let reason = problems.get(path.as_str()).unwrap();
    assert!(reason.starts_with(&format!("{path}:")), "{reason}");
    write(&directory, "a.yaml", &service("a", 82));
    let cured = ["default/a:82", "default/c:80"];
    followed.until("cured", |followed| followed.services() == cured).await;
    followed.until_health("no problem", |health| health.problems.is_empty()).await;
}

#[tokio::test]
async fn an_object_that_is_refused_keeps_its_last_good_version() {
    let directory = TempDir::new().unwrap();
    write(&directory, "a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    let mut followed = follow(&directory).await;
    write(&directory, "a.yaml", &format!("{}---\n{}", service("a", 99999), service("b", 81)));
    followed.until("b", |f| f.services() == ["default/a:80", "default/b:81"]).await;
    let snapshot = followed.newest();
    let [refusal] = &*snapshot.refused().values().collect::<Vec<_>>() else { panic!() };
    assert_eq!(&*refusal.reason, "spec.ports[0].port 99999 is not a port (1-65535)");
    assert!(refusal.origin.ends_with("a.yaml:1"), "{}", refusal.origin);
}

#[tokio::test]
async fn of_two_files_with_one_object_the_first_by_path_wins() {
    let directory = TempDir::new().unwrap();
    write(&directory, "b.yaml", &service("x", 82));
    let mut followed = follow(&directory).await;
    assert_eq!(followed.services(), ["default/x:82"]);
    write(&directory, "a.yaml", &service("x", 81));
    followed.until("a.yaml's", |followed| followed.services() == ["default/x:81"]).await;
    let snapshot = followed.newest();
    let refusal = snapshot.refused().values().next().unwrap();
    let at = |file: &str| directory.path().join(file).display().to_string();
    assert_eq!(
        refusal.to_string(),
        format!(
            "Service default/x refused: it is already defined at {}:1, which stays in force; \
             remove one of the two ({}:1)",
            at("a.yaml"),
            at("b.yaml")
        )
    );
    fs::remove_file(directory.path().join("a.yaml")).unwrap();
    followed.until("b.yaml's again", |followed| followed.services() == ["default/x:82"]).await;
    assert!(followed.newest().refused().is_empty());
}

#[tokio::test]
async fn only_secrets_an_ingress_refers_to_are_in_the_snapshot() {
    let directory = TempDir::new().unwrap();
    write(&directory, "secrets.yaml", &format!("{}---\n{}", secret("used"), secret("unused")));
    let mut followed = follow(&directory).await;
    assert!(followed.newest().secrets().is_empty());
    write(&directory, "ingress.yaml", &ingress("i", "used"));
    followed.until("the certificate", |f| f.newest().secrets().len() == 1).await;
    assert!(followed.newest().secrets().contains_key(&Key::new("default", "used")));
    write(&directory, "ingress.yaml", &ingress("i", "unused"));
    let other = Key::new("default", "unused");
    followed.until("the other one", |f| f.newest().secrets().contains_key(&other)).await;
    assert_eq!(followed.newest().secrets().len(), 1);
}

#[tokio::test]
async fn only_pods_of_the_own_node_are_in_the_snapshot() {
    let directory = TempDir::new().unwrap();
    for (name, node) in [("here", "node-1"), ("there", "node-2")] {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: {node}}}\n"
        );
        write(&directory, &format!("{name}.yaml"), &pod);
    }
    let followed = follow(&directory).await;
    let snapshot = followed.newest();
    let pods: Vec<String> = snapshot.pods().keys().map(ToString::to_string).collect();
    assert_eq!(pods, ["default/here"]);
}

/// A reader between truncation and the last write would see objects vanish.
#[tokio::test]
async fn a_file_that_is_being_written_counts_when_its_writer_is_done() {
    use std::io::Write;
    let directory = TempDir::new().unwrap();
    write(&directory, "a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    let mut followed = follow(&directory).await;
    let mut file = fs::File::create(directory.path().join("a.yaml")).unwrap();
    file.write_all(service("a", 81).as_bytes()).unwrap();
    file.flush().unwrap();
    write(&directory, "other.yaml", &service("other", 80));
    let before = ["default/a:80", "default/b:80", "default/other:80"];
    followed.until("the other file", |followed| followed.services() == before).await;
    file.write_all(format!("---\n{}", service("b", 81)).as_bytes()).unwrap();
    drop(file);
    let after = ["default/a:81", "default/b:81", "default/other:80"];
    followed.until("the whole file", |followed| followed.services() == after).await;
    assert!(followed.history().iter().skip(1).all(|services| services.len() >= 2));
}

#[tokio::test]
async fn a_writer_that_keeps_its_file_open_is_waited_for_only_so_long() {
    use std::io::Write;
    let directory = TempDir::new().unwrap();
    let mut followed = follow(&directory).await;
    let mut file = fs::File::create(directory.path().join("a.yaml")).unwrap();
    file.write_all(service("a", 81).as_bytes()).unwrap();
    followed.until("the content", |followed| followed.services() == ["default/a:81"]).await;
    drop(file);
}

/// Without the event that a new file is, nobody looked at the time.
#[tokio::test]
async fn bug_a_writer_in_place_that_keeps_its_file_open_is_waited_for_only_so_long() {
    use std::io::Write;
    let directory = TempDir::new().unwrap();
    write(&directory, "a.yaml", &service("a", 80));
    let mut followed = follow(&directory).await;
    let path = directory.path().join("a.yaml");
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(service("a", 81).as_bytes()).unwrap();
    followed.until("the content", |followed| followed.services() == ["default/a:81"]).await;
    drop(file);
}

#[tokio::test]
async fn a_directory_that_vanishes_keeps_its_content_until_it_is_back() {
    let outer = TempDir::new().unwrap();
    let path = outer.path().join("manifests");
    fs::create_dir(&path).unwrap();
    write(&outer, "manifests/a.yaml", &service("a", 80));
    let options = DirectoryOptions {
        path: path.clone(),
        node_name: None,
        labels: false,
        always: BTreeSet::new(),
    };
    let mut followed = Followed::start(Directory::new(options).unwrap(), Kind::ALL);
    followed.until("in sync", |_| true).await;
    fs::rename(&path, outer.path().join("away")).unwrap();
    followed.until_health("vanished", |health| !health.problems.is_empty()).await;
    assert_eq!(followed.services(), ["default/a:80"]);
    assert!(followed.health().stale_for(std::time::Instant::now()).is_some());
    fs::create_dir(&path).unwrap();
    write(&outer, "manifests/b.yaml", &service("b", 80));
    followed.until("back", |followed| followed.services() == ["default/b:80"]).await;
    followed.until_health("no problem", |health| health.problems.is_empty()).await;
    write(&outer, "manifests/b.yaml", &service("b", 81));
    followed.until("watched again", |followed| followed.services() == ["default/b:81"]).await;
}

#[tokio::test]
async fn links_that_lead_back_up_are_followed_once() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    symlink(directory.path(), directory.path().join("sub/up")).unwrap();
    write(&directory, "sub/a.yaml", &service("a", 80));
    let followed = follow(&directory).await;
    assert_eq!(followed.services(), ["default/a:80"]);
    assert!(followed.newest().refused().is_empty());
}

#[test]
fn a_one_time_reading_takes_files_and_directories_and_says_what_is_wrong() {
    let directory = TempDir::new().unwrap();
    write(&directory, "a.yaml", &service("a", 80));
    write(&directory, "b.yaml", "kind: [");
    write(&directory, "c.yaml", "apiVersion: apps/v1\nkind: Deployment\n");
    let single = TempDir::new().unwrap();
    write(&single, "manifest", &format!("{}---\n{}", secret("kept"), secret("left")));
    let kept = ObjectRef { kind: Kind::Secret, key: Key::new("default", "kept") };
    let paths = [directory.path().to_owned(), single.path().join("manifest")];
    let loaded = load(&paths, None, BTreeSet::from([kept])).unwrap();
    assert_eq!(loaded.snapshot.services().len(), 1);
    assert_eq!(loaded.snapshot.secrets().len(), 1);
    let ([bad], [foreign]) = (&*loaded.problems, &*loaded.foreign) else { panic!("{loaded:?}") };
    assert!(bad.contains("b.yaml:1: "), "{bad}");
    assert!(foreign.ends_with("c.yaml: Deployment (apps/v1) is no kind Fairlead reads; ignored"));
    let missing = load(&[directory.path().join("nope")], None, BTreeSet::new()).unwrap_err();
    let missing = missing.to_string();
    assert!(missing.starts_with("reading /"), "nobody has said --manifests: {missing}");
    assert!(missing.ends_with("nope: No such file or directory (os error 2)"), "{missing}");
}
