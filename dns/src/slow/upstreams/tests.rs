use std::{fs, path::Path, time::SystemTime};

use super::{files::CHECK_INTERVAL, *};
use crate::corefile::{ForwardPolicy, TlsOptions, Transport};

fn pool_of(file: &Path, own: &str) -> UpstreamPool {
    let options = ForwardOptions {
        from: ".".to_owned(),
        to: vec![To::File(file.to_owned())],
        except: vec![],
        transport: Transport::Plain,
        tls: TlsOptions::default(),
        policy: ForwardPolicy::Random,
        max_concurrent: None,
        health_check: HealthCheck::default(),
        next: vec![],
        next_on_nodata: false,
        random_case: false,
    };
    UpstreamPool::new(&options, vec![own.parse().unwrap()]).unwrap()
}

#[tokio::test]
async fn a_server_that_is_its_own_upstream_does_not_ask_itself() {
    // A pod's resolv.conf names the cluster's DNS: a loop that would eat every permit.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    let cases = [
        ("nameserver 127.0.0.1\n", "0.0.0.0:53", false),
        ("nameserver 10.96.0.10\n", "10.96.0.10:53", false),
        ("nameserver ::1\n", "[::]:53", false),
        ("nameserver 127.0.0.1\n", "127.0.0.1:5353", true),
        ("nameserver 127.0.0.53\n", "10.96.0.10:53", true),
        ("nameserver 10.96.0.10\nnameserver 192.0.2.1\n", "10.96.0.10:53", true),
        ("search example.com\n", "0.0.0.0:53", false),
    ];
    for (text, own, any) in cases {
        fs::write(&file, text).unwrap();
        assert_eq!(pool_of(&file, own).any(), any, "{text:?} on {own}");
    }
    assert!(!pool_of(&dir.path().join("none"), "0.0.0.0:53").any(), "no such file");
}

#[tokio::test]
async fn upstreams_that_a_file_names_no_more_count_for_nothing() {
    // What was probed when the file changed was known to be down afterwards, and so all there were.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
    let upstreams = pool_of(&file, "0.0.0.0:53");
    let probed = upstreams.all();
    upstreams.leave_out(probed.clone());
    assert!(upstreams.all_are_down());
    upstreams.set(vec!["192.0.2.2:53".parse().unwrap()]).unwrap();
    assert!(!upstreams.all_are_down());
    upstreams.leave_out(probed);
    assert!(!upstreams.all_are_down());
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_an_emptied_one_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    fs::write(&file, "").unwrap();
    let upstreams = pool_of(&file, "0.0.0.0:53");
    assert!(!upstreams.any());
    let write = |text: &str, at: u64| {
        fs::write(&file, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    };
    let later = || {
        let mut file = upstreams.files.lock().unwrap();
        file.checked = Instant::now().checked_sub(CHECK_INTERVAL).unwrap();
    };
    write("nameserver 192.0.2.1\n", 1000);
    upstreams.reread_if_changed();
    assert!(!upstreams.any(), "looked at a moment ago");
    later();
    upstreams.reread_if_changed();
    assert!(upstreams.any());
    write("", 2000);
    later();
    upstreams.reread_if_changed();
    assert!(upstreams.any());
}
