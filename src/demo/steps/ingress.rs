use super::{answered, outcome, requests};
use crate::{
    demo::{
        Demo, HOST,
        world::{CLIENT_V4, Place},
    },
    load::report::Report,
};

/// By name through the Ingress, from outside.
pub(crate) async fn run(demo: &mut Demo) -> anyhow::Result<()> {
    let ca = demo.ca.display().to_string();
    let https = format!("https://{HOST}/some/path");
    for (family, to) in [("IPv4", "192.168.77.2:443"), ("IPv6", "[fd77::2]:443")] {
        let what = format!("https://{HOST}, {family}, certificate verified");
        let more = ["--to", to, "--ca", &ca];
        let report = answered(demo, &what, &Place::Client, &https, &more).await?;
        if family == "IPv4" {
            let forwarded = header(&report, "x-forwarded-for");
            let words = format!("X-Forwarded-For: {}", forwarded.as_deref().unwrap_or("none"));
            let client = CLIENT_V4.to_string();
            demo.screen.expect("the pod hears of the client", words, forwarded == Some(client));
        }
    }
    redirected(demo).await?;
    let more = ["--to", "192.168.77.2:80", "--expect", "404"];
    let report = requests(demo, &Place::Client, "http://other.example.com", 1, &more).await?;
    let seen = if report.ok == 1 { "404".into() } else { outcome(&report) };
    demo.screen.expect("a host that no Ingress names", seen, report.ok == 1);
    stranger(demo, &ca).await
}

async fn redirected(demo: &mut Demo) -> anyhow::Result<()> {
    let url = format!("http://{HOST}/some/path");
    let more = ["--to", "192.168.77.2:80", "--expect", "308"];
    let report = requests(demo, &Place::Client, &url, 1, &more).await?;
    let location = report.sample.as_ref().and_then(|sample| sample.location.clone());
    let seen = match &location {
        Some(location) => format!("308 to {location}"),
        None => outcome(&report),
    };
    let held = location.is_some_and(|location| location == format!("https://{HOST}/some/path"));
    demo.screen.expect(format!("http://{HOST} is sent to https"), seen, held);
    Ok(())
}

/// Nobody gets the certificate of a name that was not asked for.
async fn stranger(demo: &mut Demo, ca: &str) -> anyhow::Result<()> {
    let more = ["--to", "192.168.77.2:443", "--ca", ca];
    let report = requests(demo, &Place::Client, "https://other.example.com", 1, &more).await?;
    let refused = report.described.first().is_some_and(|failure| failure.kind == "tls");
    let what = "https of another host: nothing to trust";
    demo.screen.expect(what, outcome(&report), refused);
    Ok(())
}

fn header(report: &Report, name: &str) -> Option<String> {
    let headers = report.sample.as_ref()?.body.get("headers")?;
    headers.get(name)?.as_str().map(str::to_owned)
}
