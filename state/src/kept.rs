//! What names are made from, kept in a file over restarts: Services, EndpointSlices and Namespaces
//! as documents of the API, one a line, between a head with the format's version and an end that
//! says how many there are.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    change::Change,
    decode::{Decoded, Decoder, SERVICE_NAME},
    model::{EndpointSlice, Kind, Name, Object, Service, ServiceType},
    snapshot::Snapshot,
    store::Store,
};

/// The file's name in its directory.
pub const FILE: &str = "names";
const UNFINISHED: &str = ".names.new";
/// Whoever takes longer to write has ended meanwhile.
const WRITING_MAX: Duration = Duration::from_secs(600);
/// First word of the file; the number is the format's.
const HEAD: &str = "fairlead-names-1";
const END: &str = "end";
/// A larger file is not ours: 100,000 Services take a quarter of it.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// The kinds kept, in the order of the file.
const KINDS: [Kind; 3] = [Kind::Namespace, Kind::Service, Kind::EndpointSlice];

/// What a file held.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The objects, and nothing else.
    pub snapshot: Arc<Snapshot>,
    /// When it was written.
    pub written: SystemTime,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'d, S> {
    metadata: Metadata<'d>,
    #[serde(flatten)]
    rest: S,
}

#[derive(Serialize)]
struct Metadata<'d> {
    name: &'d str,
    namespace: &'d str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'d str, &'d str>,
}

#[derive(Serialize)]
struct WithSpec<S> {
    spec: S,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec<'d> {
    #[serde(rename = "type")]
    service_type: &'static str,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    external_name: Option<&'d str>,
    ports: Vec<Port<'d>>,
}

#[derive(Serialize)]
struct Port<'d> {
    name: &'d str,
    protocol: String,
    port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Slice<'d> {
    address_type: &'static str,
    ports: Vec<Port<'d>>,
    endpoints: Vec<Endpoint<'d>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'d> {
    addresses: &'d [IpAddr],
    conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_ref: Option<Target<'d>>,
}

#[derive(Serialize)]
struct Conditions {
    ready: bool,
}

#[derive(Serialize)]
struct Target<'d> {
    kind: &'static str,
    name: &'d str,
}

/// Keeps a snapshot in a directory. Whoever reads sees the old file or the new one, also after a
/// crash of the machine.
///
/// # Errors
/// The directory cannot be written to; [`io::ErrorKind::AlreadyExists`]: somebody else is writing.
pub fn write(directory: &Path, snapshot: &Snapshot, now: SystemTime) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(UNFINISHED);
    let file = create(&unfinished)?;
    let written =
        fill(file, snapshot, now).and_then(|()| fs::rename(&unfinished, directory.join(FILE)));
    if written.is_err() {
        // What is left of a full disk's try is of no use.
        drop(fs::remove_file(&unfinished));
    }
    written
}

fn fill(file: File, snapshot: &Snapshot, now: SystemTime) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    writeln!(out, "{HEAD} {seconds}")?;
    let count = documents(&mut out, snapshot)?;
    writeln!(out, "{END} {count}")?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Of two that share a directory, as a server and its successor do, one writes at a time.
fn create(unfinished: &Path) -> io::Result<File> {
    let new = || File::options().write(true).create_new(true).open(unfinished);
    let is_abandoned = || {
        let modified = fs::metadata(unfinished).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > WRITING_MAX))
    };
    match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_abandoned() => {
            fs::remove_file(unfinished)?;
            new()
        }
        result => result,
    }
}

fn documents(out: &mut impl Write, snapshot: &Snapshot) -> io::Result<usize> {
    let mut count = 0;
    let mut line = |kind: Kind, document: String| {
        count += 1;
        writeln!(out, "{} {document}", kind.as_str())
    };
    for namespace in snapshot.namespaces().values() {
        let labels = by_key(&namespace.labels);
        let metadata = Metadata { name: &namespace.key.name, namespace: "", labels };
        line(Kind::Namespace, serde_json::to_string(&Document { metadata, rest: () })?)?;
    }
    for service in snapshot.services().values() {
        line(Kind::Service, serde_json::to_string(&of_service(service))?)?;
    }
    for slice in snapshot.endpoint_slices().values().filter(|slice| slice.has_service()) {
        line(Kind::EndpointSlice, serde_json::to_string(&of_slice(slice))?)?;
    }
    Ok(count)
}

fn of_service(service: &Service) -> Document<'_, WithSpec<ServiceSpec<'_>>> {
    let key = &service.key;
    let ports = service.ports.iter().map(|port| Port {
        name: &port.name,
        protocol: port.protocol.to_string().to_ascii_uppercase(),
        port: port.port,
    });
    let cluster_ips = match service.headless {
        true => vec!["None".to_owned()],
        false => service.cluster_ips.iter().map(ToString::to_string).collect(),
    };
    let spec = ServiceSpec {
        // How it is reached from outside is no part of its names.
        service_type: match service.service_type {
            ServiceType::ExternalName => "ExternalName",
            _ => "ClusterIP",
        },
        cluster_ips,
        external_name: service.extras.external_name.as_deref(),
        ports: ports.collect(),
    };
    let labels = by_key(&service.extras.labels);
    let metadata = Metadata { name: &key.name, namespace: &key.namespace, labels };
    Document { metadata, rest: WithSpec { spec } }
}

fn by_key(labels: &[(Name, Name)]) -> BTreeMap<&str, &str> {
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn of_slice(slice: &EndpointSlice) -> Document<'_, Slice<'_>> {
    let key = &slice.key;
    let ports = slice.ports.iter().map(|port| Port {
        name: &port.name,
        protocol: port.protocol.to_string().to_ascii_uppercase(),
        port: port.port,
    });
    let endpoints = slice.endpoints.iter().map(|endpoint| Endpoint {
        addresses: &endpoint.addresses,
        conditions: Conditions { ready: endpoint.ready },
        hostname: endpoint.hostname.as_deref(),
        target_ref: endpoint.pod.as_deref().map(|name| Target { kind: "Pod", name }),
    });
    let labels = BTreeMap::from([(SERVICE_NAME, slice.service.name.as_str())]);
    let metadata = Metadata { name: &key.name, namespace: &key.namespace, labels };
    let rest = Slice {
        address_type: if slice.ipv6 { "IPv6" } else { "IPv4" },
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    };
    Document { metadata, rest }
}

/// Reads what was kept; `None`: nothing was.
///
/// # Errors
/// The file cannot be read, is another version's or damaged: then nothing of it is believed.
pub fn read(directory: &Path) -> io::Result<Option<Kept>> {
    let path = directory.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.metadata()?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(bad(format!("{bytes} bytes are too many")));
    }
    let mut lines = BufReader::new(file).lines();
    let head = lines.next().transpose()?.unwrap_or_default();
    let seconds = match head.split_once(' ') {
        Some((HEAD, seconds)) => seconds.parse().map_err(|_| bad("the first line has no time"))?,
        _ => {
            return Err(bad(format!(
                "{head:.40?} is another version's first line, or no file of ours"
            )));
        }
    };
    let written = UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Some(Kept { snapshot: objects(lines, &path)?, written }))
}

fn objects(
    lines: impl Iterator<Item = io::Result<String>>,
    path: &Path,
) -> io::Result<Arc<Snapshot>> {
    let origin: Arc<str> = path.display().to_string().into();
    let mut decoder = Decoder::new(true);
    let mut all: [Vec<Object>; KINDS.len()] = Default::default();
    let mut end = None;
    for line in lines {
        let line = line?;
        let Some((word, document)) = line.split_once(' ').filter(|_| end.is_none()) else {
            return Err(bad("a line that is no object"));
        };
        if word == END {
            end = Some(document.to_owned());
            continue;
        }
        let known = KINDS.iter().zip(&mut all).find(|(kind, _)| kind.as_str() == word);
        let Some((kind, objects)) = known else {
            return Err(bad("a line of no kind that is kept"));
        };
        let item = decoder.json(*kind, document, &origin).map_err(bad)?;
        match item.decoded {
            Decoded::Object(object) => objects.push(object),
            Decoded::Ignored(_) => return Err(bad("an object that is none of ours")),
            Decoded::Refused(refusal) => return Err(bad(refusal.reason)),
        }
    }
    let count = all.iter().map(Vec::len).sum::<usize>();
    if end.as_deref() != Some(count.to_string().as_str()) {
        return Err(bad("it is cut off"));
    }
    let (mut store, snapshots) = Store::new(KINDS);
    let replaced = KINDS.into_iter().zip(all);
    let replaced =
        replaced.map(|(kind, objects)| Change::Replace { kind, objects, refused: vec![] });
    store.apply(replaced);
    let snapshot = snapshots.borrow().clone();
    snapshot.ok_or_else(|| bad("it holds nothing"))
}

fn bad(why: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: [(Kind, &str); 6] = [
        (Kind::Namespace, r#"{"metadata":{"name":"demo","labels":{"team":"a"}}}"#),
        (
            Kind::Service,
            r#"{"metadata":{"name":"web","namespace":"demo"},"spec":{"type":"LoadBalancer",
               "clusterIPs":["10.96.0.1","fd00::1"],"ports":[{"name":"http","port":80},
               {"name":"dns","protocol":"UDP","port":53}]}}"#,
        ),
        (
            Kind::Service,
            r#"{"metadata":{"name":"db","namespace":"demo","labels":{"team":"b"}},
               "spec":{"clusterIP":"None"}}"#,
        ),
        (
            Kind::Service,
            r#"{"metadata":{"name":"out","namespace":"demo"},"spec":{"type":"ExternalName",
               "externalName":"example.org"}}"#,
        ),
        (
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"db-1","namespace":"demo","labels":
               {"kubernetes.io/service-name":"db"}},"addressType":"IPv4",
               "ports":[{"name":"pg","port":5432}],"endpoints":[
               {"addresses":["10.1.0.1"],"hostname":"db-0","conditions":{"ready":true}},
               {"addresses":["10.1.0.2"],"conditions":{"ready":false},
                "targetRef":{"kind":"Pod","name":"db-x"}}]}"#,
        ),
        (
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"db-2","namespace":"demo","labels":
               {"kubernetes.io/service-name":"db"}},"addressType":"IPv6","ports":[],
               "endpoints":[{"addresses":["fd00::7"]}]}"#,
        ),
    ];

    fn snapshot() -> Arc<Snapshot> {
        let mut decoder = Decoder::new(true);
        let object = |(kind, document): (Kind, &str)| match decoder
            .json(kind, document, &"test".into())
            .unwrap()
            .decoded
        {
            Decoded::Object(object) => Change::Upsert(object),
            other => panic!("{other:?}"),
        };
        let mut changes: Vec<_> = DOCUMENTS.into_iter().map(object).collect();
        let (mut store, snapshots) = Store::new([Kind::Pod]);
        let pods = Change::Replace { kind: Kind::Pod, objects: vec![], refused: vec![] };
        changes.push(pods);
        store.apply(changes);
        snapshots.borrow().clone().unwrap()
    }

    #[test]
    fn everything_names_are_made_from_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let before = snapshot();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        write(dir.path(), &before, now).unwrap();
        let Kept { snapshot: after, written } = read(dir.path()).unwrap().unwrap();
        assert_eq!(written, now);
        assert_eq!(after.namespaces(), before.namespaces());
        assert_eq!(after.endpoint_slices(), before.endpoint_slices());
        assert_eq!(after.services().len(), 3);
        for (old, new) in before.services().values().zip(after.services().values()) {
            let as_names = |service: &Service| {
                let Service { key, cluster_ips, headless, ports, extras, .. } = service;
                let ports: Vec<_> =
                    ports.iter().map(|p| (p.name.clone(), p.protocol, p.port)).collect();
                let (alias, labels) = (extras.external_name.clone(), extras.labels.clone());
                (key.clone(), cluster_ips.clone(), *headless, ports, alias, labels)
            };
            assert_eq!(as_names(old), as_names(new));
        }
        // Written again it takes the old one's place, and nothing else is left.
        write(dir.path(), &Snapshot::default(), now).unwrap();
        assert!(read(dir.path()).unwrap().unwrap().snapshot.services().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_whole_or_not_ours_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &snapshot(), UNIX_EPOCH).unwrap();
        let good = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let cases = [
            ("cut at a line", good.rsplit_once("end").unwrap().0.to_owned(), "cut off"),
            ("cut within a line", good[..good.len() / 2].to_owned(), ""),
            ("another version", good.replacen("names-1", "names-2", 1), "another version"),
            ("no time", good.replacen("names-1 0", "names-1 x", 1), "no time"),
            ("an unknown kind", good.replacen("Namespace {", "Secret {", 1), "no kind"),
            ("a bad object", good.replacen("10.96.0.1", "10.96.0.x", 1), "10.96.0.x"),
            ("a line too many", format!("{good}more\n"), "no object"),
            ("nothing", String::new(), "another version"),
            ("bytes", "\0\u{1}\u{2}".to_owned(), "another version"),
        ];
        for (what, text, reason) in cases {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = read(dir.path()).expect_err(what);
            assert!(error.to_string().contains(reason), "{what}: {error}");
        }
        fs::write(dir.path().join(FILE), b"fairlead-names-1 0\n\xff\xfe\n").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
