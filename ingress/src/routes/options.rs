//! ingress-nginx's ConfigMap: settings of the role, and what holds for Ingresses that say nothing
//! else. Each option is read to a type or named with a reason.
//!
//! A value that cannot be read leaves the last good one of its option in force, and a ConfigMap that is
//! taken away all of them.

mod catalogue;
mod gzip;
mod read;
mod tracing;

use std::{collections::BTreeMap, sync::Arc};

use fairlead_state::{Key, Kind, Name, ObjectRef, model::ConfigMap};

pub use self::catalogue::{ConfigOption, OPTIONS};
use self::read::Reader;
use super::{
    annotations::{Annotations, Unread},
    finding::{Finding, Severity, tell},
    told,
};
use crate::config::IngressConfig;

/// What is in force.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) config: Arc<IngressConfig>,
    /// What Ingresses begin with.
    pub(super) defaults: Annotations,
    pub(super) findings: Vec<Finding>,
    /// Values that could be read.
    good: BTreeMap<Name, Name>,
    /// A ConfigMap has been read.
    is_of_map: bool,
}

impl Options {
    /// Before any ConfigMap.
    pub(super) fn new(base: &IngressConfig) -> Self {
        Self {
            config: Arc::new(base.clone()),
            defaults: Annotations::default(),
            findings: Vec::new(),
            good: BTreeMap::new(),
            is_of_map: false,
        }
    }

    /// What the ConfigMap makes of the settings the role was started with; `map`: `None` if it is
    /// not there.
    pub(super) fn next(&self, base: &IngressConfig, key: &Key, map: Option<&ConfigMap>) -> Self {
        let mut next = Self::new(base);
        let object = ObjectRef { kind: Kind::ConfigMap, key: key.clone() };
        let mut find = |severity, reason: String| {
            next.findings.push(Finding::new(object.clone(), severity, reason));
        };
        let Some(map) = map else {
            // ingress-nginx does not hear of it either: what guards everybody's paths is not gone
            // because somebody deletes and creates instead of applying.
            if self.is_of_map {
                let reason = format!(
                    "ConfigMap {key} was deleted: its last options stay in force until it is there \
                     again, or the agent is started anew"
                );
                find(Severity::Differs, reason);
                tell(&self.findings, &next.findings);
                return Self { findings: next.findings, ..self.clone() };
            }
            let reason = format!("ConfigMap {key} does not exist: the agent's own settings hold");
            find(Severity::Waiting, reason);
            tell(&self.findings, &next.findings);
            return next;
        };
        next.is_of_map = true;
        let mut reader = Reader::new(base);
        for (name, value) in &map.data {
            match reader.set(name, value) {
                Ok(()) => _ = next.good.insert(name.clone(), value.clone()),
                Err(Unread::Unknown) => {
                    let reason = format!("option {name} is none of ingress-nginx's: no effect");
                    find(Severity::Differs, reason);
                }
                Err(Unread::NotServed(what)) => {
                    let shown = told::value_of(name, value);
                    find(Severity::Differs, format!("option {name}{shown}: {what}"));
                }
                Err(Unread::Bad(what)) => {
                    let reason = format!("option {name}{} {what}", told::value_of(name, value));
                    let instead = match self.good.get(name) {
                        Some(kept) if reader.set(name, kept).is_ok() => {
                            next.good.insert(name.clone(), kept.clone());
                            format!("its last value{} stays in force", told::value_of(name, kept))
                        }
                        _ if reader.distrust(name, &reason) => {
                            "until then all answer 503".to_owned()
                        }
                        _ => "as if it were not there".to_owned(),
                    };
                    find(Severity::Refused, format!("{reason}; {instead}"));
                }
            }
        }
        let (config, defaults) = reader.finish(find);
        tell(&self.findings, &next.findings);
        next.config = Arc::new(config);
        next.defaults = defaults;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProxyProtocol;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        ConfigMap { key: Key::new("a", "b"), data: data.collect() }
    }

    fn options(old: &Options, data: &[(&str, &str)]) -> Options {
        old.next(&IngressConfig::default(), &Key::new("a", "b"), Some(&map(data)))
    }

    #[test]
    fn a_bad_value_leaves_the_last_good_one() {
        let base = IngressConfig::default();
        let start = Options::new(&base);
        let good = options(&start, &[("keep-alive", "20"), ("hsts", "false")]);
        assert_eq!(good.config.timeouts.keep_alive_idle_ms, 20_000);
        assert!(good.config.hsts.is_none() && good.findings.is_empty());
        let bad = options(&good, &[("keep-alive", "soon")]);
        assert_eq!(bad.config.timeouts.keep_alive_idle_ms, 20_000);
        assert!(bad.config.hsts.is_some(), "what is taken away is");
        assert!(bad.findings[0].reason.contains("\"20\" stays in force"), "{:?}", bad.findings);
        let never = options(&start, &[("keep-alive", "soon")]);
        assert_eq!(never.config.timeouts.keep_alive_idle_ms, base.timeouts.keep_alive_idle_ms);
    }

    #[test]
    fn options_of_a_config_map_that_is_deleted_stay_until_there_is_another() {
        let base = IngressConfig::default();
        let missing = Options::new(&base).next(&base, &Key::new("a", "b"), None);
        assert!(missing.findings[0].reason.ends_with("the agent's own settings hold"));
        let mut options = options(&missing, &[("keep-alive", "20"), ("hsts", "false")]);
        for _ in 0..2 {
            options = options.next(&base, &Key::new("a", "b"), None);
            assert_eq!(options.config.timeouts.keep_alive_idle_ms, 20_000);
            assert!(options.config.hsts.is_none());
            let [finding] = &*options.findings else { panic!("{:?}", options.findings) };
            assert_eq!(finding.severity, Severity::Differs);
            assert!(finding.reason.contains("its last options stay in force"), "{finding}");
        }
        let next = super::tests::options(&options, &[("keep-alive", "30")]);
        assert_eq!(next.config.timeouts.keep_alive_idle_ms, 30_000);
        assert!(next.config.hsts.is_some() && next.findings.is_empty());
    }

    #[test]
    fn options_mean_the_same_in_whatever_order_they_are_read() {
        let log = crate::AccessLog::to(crate::LogTarget::Stdout);
        let base = IngressConfig { access_log: Some(log), ..IngressConfig::default() };
        let data = [
            ("disable-access-log", "true"),
            ("disable-http-access-log", "false"),
            ("keep-alive", "0"),
            ("keep-alive-requests", "5"),
        ];
        let read = Options::new(&base).next(&base, &Key::new("a", "b"), Some(&map(&data)));
        assert!(read.config.access_log.is_none());
        assert_eq!(read.config.limits.requests_per_connection_max, 1);
    }

    #[test]
    fn networks_that_cannot_be_read_let_nobody_in() {
        let start = Options::new(&IngressConfig::default());
        for name in ["block-cidrs", "proxy-real-ip-cidr", "whitelist-source-range"] {
            let read = options(&start, &[(name, "nonsense")]);
            let reason = &read.findings[0].reason;
            assert!(reason.ends_with("until then all answer 503"), "{reason}");
        }
    }

    /// Both were taken for no number: streams ended after the default time, and headers were waited for longer.
    #[test]
    fn bug_times_have_units() {
        let start = Options::new(&IngressConfig::default());
        for (value, expected_ms) in [
            ("90", Some(90_000)),
            ("90s", Some(90_000)),
            ("500ms", Some(500)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("1w", Some(604_800_000)),
            ("1h30m", Some(5_400_000)),
            ("1d 12h", Some(129_600_000)),
            (" 5s ", Some(5_000)),
            ("0", None),
            ("0s", None),
            ("", None),
            ("s", None),
            ("soon", None),
            ("1x", None),
            ("1.5s", None),
            ("-5s", None),
            ("1 h", None),
            ("1h 30", Some(3_630_000)),
            ("101w99999999999999999999s", None),
            ("9999999999999999999d", None),
            ("36501d", None),
        ] {
            for name in ["proxy-stream-timeout", "proxy-protocol-header-timeout"] {
                let read = options(&start, &[(name, value)]);
                let timeouts = &read.config.timeouts;
                let found_ms = match name {
                    "proxy-stream-timeout" => timeouts.stream_idle_ms,
                    _ => timeouts.tls_handshake_ms,
                };
                match expected_ms {
                    Some(ms) => assert_eq!((found_ms, read.findings.len()), (ms, 0), "{value:?}"),
                    None => assert_eq!(read.findings.len(), 1, "{value:?}"),
                }
            }
        }
        let read = options(&start, &[("proxy-stream-timeout", "soon")]);
        let told = "option proxy-stream-timeout \"soon\" is no time; give one such as 90s, 10m or 1h; as if it \
                    were not there";
        assert_eq!(&*read.findings[0].reason, told);
    }

    /// One of them had the whole list dropped, and let everybody in.
    #[test]
    fn attack_a_text_that_cannot_be_read_takes_no_other_off_the_list() {
        let start = Options::new(&IngressConfig::default());
        let long: Vec<String> = (0..300).map(|i| format!("bot{i}")).collect();
        let many: Vec<String> = (0..257).map(|i| format!("~^bot{i}$")).collect();
        for (list, agent, blocks, told) in [
            ("~(,Bot7,~*^spider".to_owned(), "bot7", true, Some("\"~(\" is no regular expression")),
            ("Bot7,~*^spider,~(".to_owned(), "SPIDERS", true, Some("\"~(\" is no")),
            (long.join(","), "BOT299", true, None),
            (long.join(","), "bot", false, None),
            (many.join(","), "bot255", true, Some("\"~^bot256$\" is one more than 256")),
            (many.join(","), "bot256", false, Some("\"~^bot256$\" is one more than 256")),
            (many[..256].join(","), "bot255", true, None),
        ] {
            let read = options(&start, &[("block-user-agents", &list)]);
            assert_eq!(read.config.blocked.agents.fits(agent.as_bytes()), blocks, "{agent}");
            let reasons: Vec<&str> = read.findings.iter().map(|found| &*found.reason).collect();
            let is_told = told.is_none_or(|told| reasons.iter().any(|why| why.contains(told)));
            assert!(is_told && reasons.len() == usize::from(told.is_some()), "{reasons:?}");
        }
    }

    #[test]
    fn whoever_believes_everybody_is_told_so() {
        let start = Options::new(&IngressConfig::default());
        let believing = |cidr| {
            let named = [("proxy-real-ip-cidr", cidr), ("use-forwarded-headers", "true")];
            options(&start, &named).findings
        };
        for cidr in ["", "0.0.0.0/0", "::/0", "192.0.2.0/24,0.0.0.0/0"] {
            let findings = believing(cidr);
            let [finding] = &*findings else { panic!("{cidr:?}: {findings:?}") };
            assert_eq!(finding.severity, Severity::Differs);
            assert!(finding.reason.contains("name your balancers in proxy-real-ip-cidr"));
        }
        assert_eq!(believing("192.0.2.0/24,2001:db8::/32"), []);
        assert_eq!(options(&start, &[("use-forwarded-headers", "true")]).findings.len(), 1);
        for nobody in [&[][..], &[("use-forwarded-headers", "false")]] {
            assert_eq!(options(&start, nobody).findings, []);
        }
    }

    #[test]
    fn whoever_believes_proxy_headers_of_everybody_is_told_so() {
        let config = |trusted: &[&str]| {
            let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
            let proxy_protocol = Some(ProxyProtocol { trusted });
            IngressConfig { proxy_protocol, ..IngressConfig::default() }
        };
        let [without, named] = [IngressConfig::default(), config(&["192.0.2.0/24"])];
        let on = ("use-proxy-protocol", "true");
        let nobody = [on, ("proxy-real-ip-cidr", "")];
        let all = [on, ("proxy-real-ip-cidr", "192.0.2.0/24,::/0")];
        let one = [on, ("proxy-real-ip-cidr", "192.0.2.0/24")];
        for (start, entries, is_told) in [
            (&without, &[on][..], true),
            (&without, &nobody, true),
            (&without, &all, true),
            (&without, &one, false),
            // Whom the flags name holds.
            (&named, &[on], false),
            (&named, &all, true),
            // It is the flags' to say, and said at the start.
            (&config(&[]), &[], false),
            (&without, &[("use-proxy-protocol", "false")], false),
        ] {
            let read = Options::new(start).next(start, &Key::new("a", "b"), Some(&map(entries)));
            let findings = read.findings;
            let told = findings.iter().any(|finding| {
                finding.severity == Severity::Differs
                    && finding.reason.contains("use-proxy-protocol believes everybody")
            });
            assert_eq!((told, findings.len()), (is_told, usize::from(is_told)), "{findings:?}");
        }
    }

    #[test]
    fn the_reader_does_what_the_list_says() {
        let start = Options::new(&IngressConfig::default());
        assert!(OPTIONS.iter().map(|option| option.name).is_sorted());
        for option in OPTIONS.iter() {
            let read = options(&start, &[(option.name, option.example)]);
            let reasons: Vec<_> = read.findings.iter().map(|finding| &*finding.reason).collect();
            let is_unknown =
                reasons.iter().any(|reason| reason.contains("none of ingress-nginx's"));
            assert!(!is_unknown, "{}: {reasons:?}", option.name);
            match option.support {
                super::super::Support::Works => {
                    assert!(reasons.is_empty(), "{}: {reasons:?}", option.name);
                }
                super::super::Support::Differs => {}
                super::super::Support::Refused => {
                    assert!(!reasons.is_empty(), "{}", option.name);
                    assert!(!option.note.is_empty(), "{}", option.name);
                }
            }
        }
    }

    #[test]
    fn no_value_of_any_option_breaks_the_reader() {
        let start = Options::new(&IngressConfig::default());
        for option in OPTIONS.iter() {
            for value in ["", "-1", "99999999999999999999", "\u{0}", "$", "~(", "a,b;c\n", "true"] {
                let _ = options(&start, &[(option.name, value)]);
            }
        }
    }
}
