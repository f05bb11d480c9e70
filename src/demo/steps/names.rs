use std::net::IpAddr;

use super::{duration, probe};
use crate::demo::{Demo, traffic, upstream};

/// Looks names up as a program in a pod does: getaddrinfo, its search list, the cluster's DNS
/// Service.
pub(crate) async fn run(demo: &mut Demo) -> anyhow::Result<()> {
    let hello: Vec<IpAddr> = vec!["10.96.0.20".parse()?, "fd00:10:96::20".parse()?];
    let db = |demo: &Demo, name: Option<&str>| -> Vec<IpAddr> {
        let pods = demo.db.pods().filter(|pod| name.is_none_or(|name| pod.name == name));
        pods.flat_map(|pod| [IpAddr::from(pod.v4), IpAddr::from(pod.v6)]).collect()
    };
    let (all, first) = (db(demo, None), db(demo, Some("db-0")));
    expect(demo, "hello", hello.clone()).await?;
    expect(demo, "hello.default.svc.cluster.local", hello).await?;
    expect(demo, "db", all).await?;
    expect(demo, "db-0.db", first).await?;
    expect(demo, upstream::NAME, vec![upstream::V4.into(), upstream::V6.into()]).await?;
    expect(demo, "nobody", Vec::new()).await
}

async fn expect(demo: &mut Demo, name: &str, mut expected: Vec<IpAddr>) -> anyhow::Result<()> {
    let looked = traffic::look_up(&demo.world, &probe(), name).await?;
    let mut found = looked.addresses;
    found.sort_unstable();
    expected.sort_unstable();
    // "Temporary failure" would be a server that cannot say, which is another thing than "no".
    let unsure = looked.error.as_ref().is_some_and(|error| error.contains("Temporary"));
    let words = match looked.error {
        Some(error) if unsure => error,
        Some(_) => "no such name".into(),
        None => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    demo.screen.expect(
        format!("{name}, asked by a pod"),
        format!("{words} in {}", duration(looked.micros)),
        found == expected && !unsure,
    );
    Ok(())
}
