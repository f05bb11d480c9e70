//! `loadbalance weighted`: which address comes first, by weights from a file that is read again.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU8,
    sync::{Arc, Mutex},
    time::Instant,
};

use arc_swap::ArcSwap;
use hickory_proto::{
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA},
    },
    serialize::binary::BinEncodable,
};

use crate::{
    corefile::WeightOptions,
    error::DnsError,
    files::text_of,
    wire::{
        name::{LowerName, WireName},
        rtype,
    },
};

/// Larger files are not read: a ConfigMap holds no more.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Weights in force.
#[derive(Debug)]
pub(super) struct Weights {
    options: WeightOptions,
    table: ArcSwap<Table>,
    /// When the file was last looked at.
    looked: Mutex<Instant>,
}

/// By the owner's name in wire form, lower case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table(HashMap<Box<[u8]>, Vec<(IpAddr, NonZeroU8)>>);

impl Weights {
    /// # Errors
    /// A file that is no file of weights; one that cannot be read, if it is not read again either.
    pub(super) fn new(options: &WeightOptions) -> Result<Self, DnsError> {
        let file = &options.file;
        let bad = |why| DnsError::WeightFile { file: file.clone(), why };
        let table = match text_of(file, FILE_BYTES_MAX) {
            Ok(text) => Table::parse(&text).map_err(bad)?,
            Err(error) if options.reload.is_some() => {
                let file = file.display();
                tracing::warn!(%file, "DNS: loadbalance weighted: not read, trying on: {error}");
                Table::default()
            }
            Err(error) => return Err(bad(error.to_string())),
        };
        Ok(Self {
            options: options.clone(),
            table: ArcSwap::from_pointee(table),
            looked: Mutex::new(Instant::now()),
        })
    }

    /// Whether answers to questions of a type are put in order.
    pub(super) fn are_for(&self, qtype: u16) -> bool {
        [rtype::A, rtype::AAAA, rtype::SRV].contains(&qtype)
    }

    /// Puts one of the addresses, chosen by chance and weights, in front of the others: behind aliases and
    /// what is no address, before mail servers.
    pub(super) fn order(&self, records: &mut [Record]) {
        self.reread_if_due();
        if !records.iter().any(|record| address(record).is_some()) {
            return;
        }
        records.sort_by_key(|record| match record.data {
            RData::CNAME(_) => 0,
            RData::A(_) | RData::AAAA(_) => 2,
            RData::MX(_) => 3,
            _ => 1,
        });
        let table = self.table.load();
        let first = records.iter().position(|record| address(record).is_some()).unwrap_or(0);
        let addresses = records.iter().skip(first).map_while(|r| Some((&r.name, address(r)?)));
        let weights: Vec<_> =
            addresses.map(|(owner, address)| table.weight(owner, address)).collect();
        let total = weights.iter().map(|weight| u32::from(weight.get())).sum::<u32>();
        let chosen = pick(&weights, rand::random::<u32>() % total.max(1));
        records.swap(first, first + chosen);
    }

    fn reread_if_due(&self) {
        let Some(reload) = self.options.reload else { return };
        // Somebody else is at it.
        let Ok(mut looked) = self.looked.try_lock() else { return };
        if looked.elapsed() >= reload {
            *looked = Instant::now();
            self.reread();
        }
    }

    fn reread(&self) {
        let file = &self.options.file;
        let text = text_of(file, FILE_BYTES_MAX).map_err(|error| error.to_string());
        match text.and_then(|text| Table::parse(&text)) {
            Ok(table) if table != **self.table.load() => {
                tracing::info!(file = %file.display(), "DNS: loadbalance weighted: new weights");
                self.table.store(Arc::new(table));
            }
            Ok(_) => {}
            Err(why) => {
                let file = file.display();
                tracing::warn!(%file, "DNS: loadbalance weighted: the old weights stay: {why}");
            }
        }
    }
}

impl Table {
    /// Lines of a domain name each, of addresses with their weights behind it, of comments.
    fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut owner: Option<Box<[u8]>> = None;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("line {number}: {line:?}: {what}");
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [address] if address.parse::<IpAddr>().is_ok() => {
                    return Err(wrong("write a weight behind the address"));
                }
                [name] => {
                    let name = WireName::from_text(name)
                        .map_err(|error| wrong(&format!("no domain name: {error}")))?;
                    owner = Some(name.as_bytes().into());
                }
                [address, weight] => {
                    let address: IpAddr =
                        address.parse().map_err(|_| wrong("begin with an IP address"))?;
                    let weight: NonZeroU8 =
                        weight.parse().map_err(|_| wrong("give a weight of 1 to 255"))?;
                    let Some(owner) = &owner else {
                        return Err(wrong("write the domain name in a line before"));
                    };
                    let of_owner = table.0.entry(owner.clone()).or_default();
                    of_owner.push((address.to_canonical(), weight));
                }
                _ => return Err(wrong("write a domain name, or an address and its weight")),
            }
        }
        Ok(table)
    }

    /// One, unless the file says otherwise.
    fn weight(&self, owner: &Name, address: IpAddr) -> NonZeroU8 {
        let known = || {
            let mut lower = LowerName::new();
            lower.read(&owner.to_bytes().ok()?)?;
            let mut all = self.0.get(lower.as_bytes())?.iter();
            all.find(|(known, _)| *known == address.to_canonical()).map(|(_, weight)| *weight)
        };
        known().unwrap_or(NonZeroU8::MIN)
    }
}

/// The place on which unit number `at` of all weights falls.
fn pick(weights: &[NonZeroU8], mut at: u32) -> usize {
    for (place, weight) in weights.iter().enumerate() {
        match at.checked_sub(weight.get().into()) {
            Some(rest) => at = rest,
            None => return place,
        }
    }
    0
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(A(v4)) => Some((*v4).into()),
        RData::AAAA(AAAA(v6)) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use hickory_proto::rr::rdata::CNAME;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, address: &str) -> Record {
        let data = match address.parse().unwrap() {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        Record::from_rdata(name(owner), 60, data)
    }

    fn weights(text: &str) -> (tempfile::TempDir, Weights) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, text).unwrap();
        let options = WeightOptions { file, reload: Some(Duration::from_secs(30)) };
        (folder, Weights::new(&options).unwrap())
    }

    #[test]
    fn each_address_has_the_weight_of_its_name_and_else_one() {
        let text = "# Of the shop.\n\n Shop.example.\n 192.0.2.1   3\n::ffff:192.0.2.2 255\n\
                    other.example\n192.0.2.1 7\n2001:db8::1 9\nshop.EXAMPLE\n192.0.2.4 5\n";
        let table = Table::parse(text).unwrap();
        for (owner, address, weight) in [
            ("shop.example.", "192.0.2.1", 3),
            ("SHOP.example.", "192.0.2.2", 255),
            ("shop.example.", "192.0.2.3", 1),
            ("shop.example.", "192.0.2.4", 5),
            ("other.example.", "192.0.2.1", 7),
            ("other.example.", "2001:db8::1", 9),
            ("shop.example.", "::ffff:192.0.2.1", 3),
            ("www.shop.example.", "192.0.2.1", 1),
        ] {
            let found = table.weight(&name(owner), address.parse().unwrap());
            assert_eq!(found.get(), weight, "{owner} {address}");
        }
    }

    #[test]
    fn what_is_no_weight_is_said_with_its_line_and_cure() {
        for (text, wanted) in [
            ("192.0.2.1 1", "line 1: \"192.0.2.1 1\": write the domain name"),
            ("a.test\n192.0.2.1", "line 2: \"192.0.2.1\": write a weight"),
            ("a.test\n\n192.0.2.1 0", "line 3: \"192.0.2.1 0\": give a weight of 1 to 255"),
            ("a.test\n192.0.2.1 256", "give a weight"),
            ("a.test\n192.0.2.1 -1", "give a weight"),
            ("a.test\n192.0.2 1", "begin with an IP address"),
            ("a.test\n192.0.2.1 1 # one", "write a domain name, or an address"),
            ("a..test", "no domain name"),
        ] {
            let error = Table::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn places_are_picked_as_often_as_they_weigh() {
        let weights = [3, 1, 2].map(|weight| NonZeroU8::new(weight).unwrap());
        let picked: Vec<_> = (0..6).map(|at| pick(&weights, at)).collect();
        assert_eq!(picked, [0, 0, 0, 1, 2, 2]);
    }

    #[test]
    fn one_address_comes_to_the_front_and_the_rest_stays_as_it_was() {
        let (_folder, weights) = weights("a.test\n192.0.2.3 255\n");
        let alias = Record::from_rdata(name("www.test."), 60, RData::CNAME(CNAME(name("a.test."))));
        let given: Vec<_> =
            (1..=3).map(|last| record("a.test.", &format!("192.0.2.{last}"))).collect();
        let mut firsts = [0; 3];
        for _ in 0..1000 {
            let mut records = [&given[..], std::slice::from_ref(&alias)].concat();
            weights.order(&mut records);
            assert_eq!(records[0], alias);
            let first = given.iter().position(|known| *known == records[1]).unwrap();
            firsts[first] += 1;
            let mut wanted = given.clone();
            wanted.swap(0, first);
            assert_eq!(records[1..], wanted[..]);
        }
        // 2 of 257 are another's: about eight.
        assert!(firsts[2] > 900, "{firsts:?}");
        let mut none = vec![alias.clone()];
        weights.order(&mut none);
        assert_eq!(none, [alias]);
    }

    #[test]
    fn a_file_that_becomes_wrong_or_goes_leaves_the_old_weights() {
        let (folder, weights) = weights("a.test\n192.0.2.1 9\n");
        let file = folder.path().join("weights");
        let weight = || {
            weights.reread();
            weights.table.load().weight(&name("a.test."), IpAddr::from([192, 0, 2, 1])).get()
        };
        fs::write(&file, "a.test\n192.0.2.1 many\n").unwrap();
        assert_eq!(weight(), 9);
        fs::remove_file(&file).unwrap();
        assert_eq!(weight(), 9);
        fs::write(&file, "a.test\n192.0.2.1 4\n").unwrap();
        assert_eq!(weight(), 4);
    }

    #[test]
    fn a_file_that_is_not_there_is_waited_for_if_it_is_read_again() {
        let file = std::path::PathBuf::from("/nonexistent/weights");
        for (reload, is_taken) in [(Some(Duration::from_secs(1)), true), (None, false)] {
            let options = WeightOptions { file: file.clone(), reload };
            assert_eq!(Weights::new(&options).is_ok(), is_taken, "{reload:?}");
        }
    }
}
