//! `hosts`: addresses from a file and from the Corefile. Read again when the file's time stamp
//! changes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;

use crate::{
    corefile::HostsOptions,
    counters::HostsReport,
    error::DnsError,
    files::{bytes_of, modified},
    policy::{Misses, ZoneName, zone_names},
    wire::{
        name::{LowerName, NAME_BYTES_MAX, WireName},
        record::RrSet,
        rtype,
    },
    zone::reverse::Family,
};

/// The label that stands for any one.
const WILDCARD: &[u8] = b"\x01*";
/// Larger files are not read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Names and addresses in force.
#[derive(Debug)]
pub(crate) struct Hosts {
    options: HostsOptions,
    zones: Box<[ZoneName]>,
    misses: Misses,
    table: ArcSwap<Table>,
    checked: Mutex<(Instant, Option<SystemTime>)>,
}

#[derive(Debug, Default)]
struct Table {
    /// By name in wire form, lower case.
    names: HashMap<Box<[u8]>, Vec<IpAddr>>,
    /// Some names are `*.SOMETHING`.
    has_wildcards: bool,
    addresses: HashMap<IpAddr, Vec<WireName>>,
}

/// What the table says.
#[derive(Debug)]
pub(crate) enum HostAnswer {
    Records(RrSet),
    NoData,
    NoName,
    /// The next plugin is asked.
    PassOn,
}

impl Hosts {
    pub(crate) fn new(options: &HostsOptions) -> Result<Self, DnsError> {
        let modified = modified(&options.file);
        Ok(Self {
            options: options.clone(),
            zones: zone_names(&options.zones)?,
            misses: Misses::new(&options.fallthrough)?,
            table: ArcSwap::from_pointee(
                Table::read(options).unwrap_or_else(|| Table::of(options)),
            ),
            checked: Mutex::new((Instant::now(), modified)),
        })
    }

    /// Whether the answer is in here, or a denial.
    pub(crate) fn claims(&self, name: &LowerName) -> bool {
        let is_for = self.is_for(name);
        let may_be_known = is_for || reverse(name).is_some();
        is_for && !self.misses.pass_on(name) || may_be_known && self.knows(name)
    }

    /// Looks a name up.
    pub(crate) fn answer(&self, name: &LowerName, qtype: u16) -> HostAnswer {
        let address = reverse(name);
        // As in CoreDNS, an address' name need not be in the zones: the names it leads to are.
        if address.is_none() && !self.is_for(name) {
            return HostAnswer::PassOn;
        }
        self.reread_if_changed();
        let table = self.table.load();
        let ttl = self.options.ttl_seconds;
        if let Some(address) = address {
            let data: Vec<_> = self.names_at(&table, address).map(WireName::as_bytes).collect();
            if !data.is_empty() && qtype == rtype::PTR {
                return HostAnswer::Records(RrSet::of_data(rtype::PTR, &data, ttl));
            }
            if !data.is_empty() {
                return HostAnswer::NoData;
            }
            // Likewise, others may know it whatever `fallthrough` says.
            if qtype == rtype::PTR || !self.is_for(name) {
                return HostAnswer::PassOn;
            }
        } else {
            let known = table.addresses_of(name);
            // A wildcard's take the place of a family the name itself has none of, as in CoreDNS.
            let addresses = |of: &[IpAddr]| RrSet::addresses(qtype, of.iter().copied(), ttl);
            if let Some(set) = known.into_iter().find_map(addresses) {
                return HostAnswer::Records(set);
            }
            if known.iter().any(|of| !of.is_empty()) {
                return HostAnswer::NoData;
            }
        }
        if self.misses.pass_on(name) { HostAnswer::PassOn } else { HostAnswer::NoName }
    }

    /// What there is in it.
    pub(crate) fn report(&self) -> HostsReport {
        let table = self.table.load();
        let addresses = table.names.values().map(Vec::len).sum::<usize>();
        let names = table.addresses.values().map(Vec::len).sum::<usize>();
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        HostsReport {
            file: self.options.file.display().to_string(),
            entries: (addresses + names) as u64,
            modified: checked.1,
        }
    }

    fn is_for(&self, name: &LowerName) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zone.holds(name))
    }

    fn knows(&self, name: &LowerName) -> bool {
        // A file that changed is seen here first: the fast path asks nothing else.
        self.reread_if_changed();
        let table = self.table.load();
        table.addresses_of(name).iter().any(|of| !of.is_empty())
            || reverse(name).is_some_and(|address| self.names_at(&table, address).next().is_some())
    }

    /// Names of an address, of those this is for.
    fn names_at<'t>(
        &self,
        table: &'t Table,
        address: IpAddr,
    ) -> impl Iterator<Item = &'t WireName> {
        let all = table.addresses.get(&address).filter(|_| !self.options.no_reverse);
        all.into_iter().flatten().filter(|name| {
            let mut lower = LowerName::new();
            lower.read(name.as_bytes()).is_some() && self.is_for(&lower)
        })
    }

    fn reread_if_changed(&self) {
        let Some(interval) = self.options.reload else { return };
        let Ok(mut checked) = self.checked.try_lock() else { return };
        if checked.0.elapsed() < interval {
            return;
        }
        let now = modified(&self.options.file);
        let changed = now != checked.1;
        *checked = (Instant::now(), now);
        // A file that cannot be read now must not take names away.
        if changed
            && now.is_some()
            && let Some(table) = Table::read(&self.options)
        {
            self.table.store(Arc::new(table));
        }
    }
}

impl Table {
    /// What the Corefile itself has.
    fn of(options: &HostsOptions) -> Self {
        let mut table = Self::default();
        for (address, names) in &options.inline {
            table.add(*address, names.iter().map(String::as_str));
        }
        table
    }

    /// The same with the file's; `None`, and said, if that cannot be read.
    fn read(options: &HostsOptions) -> Option<Self> {
        let file = options.file.as_path();
        let read = bytes_of(file, FILE_BYTES_MAX).inspect_err(|error| {
            tracing::warn!(file = %file.display(), "DNS: hosts: not read: {error}");
        });
        let mut table = Self::of(options);
        table.add_lines(&read.ok()?);
        Some(table)
    }

    /// A line that is no UTF-8 is no reason to lose the others.
    fn add_lines(&mut self, bytes: &[u8]) {
        for line in String::from_utf8_lossy(bytes).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words.next().and_then(|word| word.split('%').next()?.parse().ok());
            if let Some(address) = address {
                self.add(address, words);
            }
        }
    }

    fn add<'n>(&mut self, address: IpAddr, names: impl Iterator<Item = &'n str>) {
        // What is no name cannot be asked for.
        for name in names.filter_map(|name| WireName::from_text(name).ok()) {
            let addresses = self.names.entry(name.as_bytes().into()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            if name.as_bytes().starts_with(WILDCARD) {
                self.has_wildcards = true;
            } else {
                self.addresses.entry(address).or_default().push(name);
            }
        }
    }

    /// A name's own addresses, and those of the wildcard that stands for its first label.
    fn addresses_of(&self, name: &LowerName) -> [&[IpAddr]; 2] {
        let own = self.names.get(name.as_bytes());
        [own, self.wildcard_of(name)].map(|all| all.map_or(&[][..], Vec::as_slice))
    }

    fn wildcard_of(&self, name: &LowerName) -> Option<&Vec<IpAddr>> {
        if !self.has_wildcards || name.label_count() < 2 {
            return None;
        }
        let rest = name.as_bytes().get(name.start(1)..)?;
        let mut key = [0; NAME_BYTES_MAX];
        let key = key.get_mut(..WILDCARD.len() + rest.len())?;
        let (label, others) = key.split_at_mut_checked(WILDCARD.len())?;
        label.copy_from_slice(WILDCARD);
        others.copy_from_slice(rest);
        self.names.get(&*key)
    }
}

fn reverse(name: &LowerName) -> Option<IpAddr> {
    [Family::V4, Family::V6].iter().find_map(|family| {
        let suffix: &[u8] = match family {
            Family::V4 => b"\x07in-addr\x04arpa\0",
            Family::V6 => b"\x03ip6\x04arpa\0",
        };
        name.as_bytes().ends_with(suffix).then(|| family.address(name)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label_and_has_no_address_names() {
        let options = HostsOptions {
            file: "/dev/null".into(),
            zones: vec![],
            inline: vec![
                ("192.0.2.1".parse().unwrap(), vec!["*.example.com".to_owned()]),
                ("2001:db8::1".parse().unwrap(), vec!["*.example.com".to_owned()]),
                ("192.0.2.2".parse().unwrap(), vec!["a.example.com".to_owned()]),
            ],
            ttl_seconds: 60,
            no_reverse: false,
            fallthrough: crate::corefile::Fallthrough::Never,
            reload: None,
        };
        let hosts = Hosts::new(&options).unwrap();
        let cases = [
            ("b.example.com", rtype::A, Some("192.0.2.1")),
            ("b.example.com", rtype::AAAA, Some("2001:db8::1")),
            ("a.example.com", rtype::A, Some("192.0.2.2")),
            ("a.example.com", rtype::AAAA, Some("2001:db8::1")),
            ("*.example.com", rtype::A, Some("192.0.2.1")),
            ("example.com", rtype::A, None),
            ("x.b.example.com", rtype::A, None),
            ("com", rtype::A, None),
            ("1.2.0.192.in-addr.arpa", rtype::PTR, None),
        ];
        for (name, qtype, wanted) in cases {
            let mut lower = LowerName::new();
            lower.read(WireName::from_text(name).unwrap().as_bytes()).unwrap();
            let found = match hosts.answer(&lower, qtype) {
                HostAnswer::Records(set) => Some(set.answers),
                _ => None,
            };
            let wanted = wanted.and_then(|text| {
                RrSet::addresses(qtype, [text.parse().unwrap()], 60).map(|set| set.answers)
            });
            assert_eq!(found, wanted, "{name} {qtype}");
        }
        let mut other = LowerName::new();
        other.read(WireName::from_text("b.example.com").unwrap().as_bytes()).unwrap();
        assert!(matches!(hosts.answer(&other, rtype::TXT), HostAnswer::NoData));
        assert!(hosts.claims(&other));
    }

    #[test]
    fn an_address_leads_to_names_of_the_zones_wherever_its_own_name_is() {
        let options = HostsOptions {
            file: "/dev/null".into(),
            zones: vec!["example.com".to_owned()],
            inline: vec![
                ("192.0.2.1".parse().unwrap(), vec!["a.example.com".to_owned()]),
                ("192.0.2.1".parse().unwrap(), vec!["a.example.net".to_owned()]),
                ("192.0.2.2".parse().unwrap(), vec!["b.example.net".to_owned()]),
            ],
            ttl_seconds: 60,
            no_reverse: false,
            fallthrough: crate::corefile::Fallthrough::Never,
            reload: None,
        };
        let hosts = Hosts::new(&options).unwrap();
        // Whether it is answered here, and with how many records.
        for (name, qtype, wanted) in [
            ("1.2.0.192.in-addr.arpa", rtype::PTR, Some(1)),
            ("1.2.0.192.in-addr.arpa", rtype::TXT, Some(0)),
            ("2.2.0.192.in-addr.arpa", rtype::PTR, None),
            ("2.2.0.192.in-addr.arpa", rtype::TXT, None),
            ("a.example.com", rtype::A, Some(1)),
            ("b.example.com", rtype::A, Some(0)),
            ("a.example.net", rtype::A, None),
        ] {
            let mut lower = LowerName::new();
            lower.read(WireName::from_text(name).unwrap().as_bytes()).unwrap();
            let found = match hosts.answer(&lower, qtype) {
                HostAnswer::Records(set) => {
                    Some(crate::wire::record::each_record(&set.answers).count())
                }
                HostAnswer::NoData | HostAnswer::NoName => Some(0),
                HostAnswer::PassOn => None,
            };
            assert_eq!(found, wanted, "{name} {qtype}");
            assert_eq!(hosts.claims(&lower), wanted.is_some(), "{name}");
        }
    }

    #[test]
    fn a_file_is_read_again_unless_reload_is_zero() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        let (first, later) = (SystemTime::UNIX_EPOCH, SystemTime::now());
        let write = |address: &str, at| {
            std::fs::write(&file, format!("{address} a.example\n")).unwrap();
            let written = std::fs::File::options().write(true).open(&file).unwrap();
            written.set_modified(at).unwrap();
        };
        for (reload, wanted) in [(None, "192.0.2.1"), (Some(Duration::from_nanos(1)), "192.0.2.2")]
        {
            write("192.0.2.1", first);
            let hosts = Hosts::new(&HostsOptions {
                file: file.clone(),
                zones: vec![],
                inline: vec![],
                ttl_seconds: 60,
                no_reverse: false,
                fallthrough: crate::corefile::Fallthrough::Never,
                reload,
            });
            write("192.0.2.2", later);
            let mut name = LowerName::new();
            name.read(WireName::from_text("a.example").unwrap().as_bytes()).unwrap();
            let answer = hosts.unwrap().answer(&name, rtype::A);
            let HostAnswer::Records(set) = answer else { panic!("{answer:?}") };
            let wanted = RrSet::addresses(rtype::A, [wanted.parse().unwrap()], 60).unwrap();
            assert_eq!(set.answers, wanted.answers, "{reload:?}");
        }
    }

    /// One byte in a comment, or a mount that came late, took all names away until the file changed again.
    #[test]
    fn a_byte_that_is_no_text_or_a_file_that_cannot_be_read_takes_no_names_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        let mut time = SystemTime::UNIX_EPOCH;
        let mut write = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            time += Duration::from_secs(1);
            let written = std::fs::File::options().write(true).open(&file).unwrap();
            written.set_modified(time).unwrap();
        };
        write(b"192.0.2.1 a.example # caf\xe9\n192.0.2.2 caf\xe9 b.example\n");
        let hosts = Hosts::new(&HostsOptions {
            file: file.clone(),
            zones: vec![],
            inline: vec![],
            ttl_seconds: 60,
            no_reverse: false,
            fallthrough: crate::corefile::Fallthrough::Never,
            reload: Some(Duration::from_nanos(1)),
        })
        .unwrap();
        let is_known = |name: &str| {
            let mut lower = LowerName::new();
            lower.read(WireName::from_text(name).unwrap().as_bytes()).unwrap();
            matches!(hosts.answer(&lower, rtype::A), HostAnswer::Records(_))
        };
        assert!(is_known("a.example") && is_known("b.example"));
        // A folder can be opened and not be read, by root, too.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(is_known("a.example") && is_known("b.example"));
        std::fs::remove_dir(&file).unwrap();
        write(b"192.0.2.1 a.example\n");
        assert!(is_known("a.example") && !is_known("b.example"));
    }
}
