//! The query log, in CoreDNS's formats.

use std::{
    fmt::{self, Display, Formatter, Write as _},
    net::IpAddr,
    time::Duration,
};

use hickory_proto::op::Edns;
use hickory_server::{net::xfer::Protocol, server::Request};

use super::{Asked, kind::ReplyKind, message};
use crate::{
    corefile::{LogClass, LogField, LogPiece},
    policy::Site,
    wire::{
        CLASS_IN, UDP_REPLY_BYTES_WITHOUT_EDNS,
        question::Question,
        text::NameText,
        types::{class_name, type_name},
    },
};

/// A question and its reply.
#[derive(Clone, Copy)]
pub(super) struct Logged<'l> {
    pub(super) request: &'l Request,
    pub(super) asked: Asked<'l>,
    pub(super) plain: &'l Question,
    /// Empty where `acl` lets none be sent.
    pub(super) reply: &'l [u8],
    pub(super) code: u16,
    pub(super) took: Duration,
}

impl Logged<'_> {
    /// Writes them down, if `log` of the server block wants it.
    pub(super) fn write(self, site: &Site) {
        if let Some(format) = site.log_format(&self.plain.name, self.kind().class()) {
            tracing::info!("{}", self.line(format));
        }
    }

    fn kind(self) -> ReplyKind {
        ReplyKind::of(self.request, self.reply, self.plain.end, self.code)
    }

    fn line(self, format: &[LogPiece]) -> String {
        let mut line = String::new();
        for piece in format {
            match piece {
                LogPiece::Text(text) => line.push_str(text),
                LogPiece::Field(field) => self.field(*field, &mut line),
            }
        }
        line
    }

    /// Writing to a String cannot fail.
    fn field(self, field: LogField, line: &mut String) {
        let (request, source) = (self.request, self.asked.source);
        let question = request.queries.queries().first();
        let edns = request.edns.as_ref();
        let is_udp = self.asked.transport == Protocol::Udp;
        let _ = match field {
            LogField::Type => line.write_str(&type_name(self.plain.qtype)),
            LogField::Name => line.write_str(NameText::of(&self.plain.name).as_str()),
            LogField::Class => {
                let class = question.map_or(CLASS_IN, |question| question.query_class().into());
                line.write_str(&class_name(class))
            }
            LogField::Proto if is_udp => write!(line, "udp"),
            LogField::Proto => write!(line, "tcp"),
            LogField::Remote => write!(line, "{}", Bracketed(source.ip())),
            LogField::Local => match self.asked.local {
                Some(local) => write!(line, "{}", Bracketed(local)),
                None => line.write_str("-"),
            },
            LogField::Port => write!(line, "{}", source.port()),
            LogField::Size => write!(line, "{}", self.asked.query.len()),
            LogField::Duration => write!(line, "{:.9}s", self.took.as_secs_f64()),
            // As of what there is none of.
            LogField::Code | LogField::ReplyFlags if self.reply.is_empty() => line.write_str("-"),
            LogField::Code => line.write_str(&message::code_name(self.code)),
            LogField::ReplySize => write!(line, "{}", self.reply.len()),
            LogField::ReplyFlags => write!(line, "{}", message::flag_names(self.reply)),
            LogField::BufferSize if !is_udp => write!(line, "{}", u16::MAX),
            LogField::BufferSize => {
                let least = u16::try_from(UDP_REPLY_BYTES_WITHOUT_EDNS).unwrap_or(u16::MAX);
                write!(line, "{}", edns.map_or(least, Edns::max_payload).max(least))
            }
            LogField::DnssecOk => {
                write!(line, "{}", edns.is_some_and(|edns| edns.flags().dnssec_ok))
            }
            LogField::Id => write!(line, "{}", request.metadata.id),
            LogField::Opcode => write!(line, "{}", u8::from(request.metadata.op_code)),
            LogField::ReplyClass => line.write_str(match self.kind().class() {
                LogClass::Success => "success",
                LogClass::Denial => "denial",
                LogClass::Error | LogClass::All => "error",
            }),
            LogField::ReplyType => line.write_str(self.kind().as_str()),
        };
    }
}

/// An address as it stands in front of a port (RFC 3986 §3.2.2).
struct Bracketed(IpAddr);

impl Display for Bracketed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "[{v6}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hickory_proto::{
        op::{Message, Query},
        rr::{Name, RecordType},
    };

    use super::{super::chain::seen, *};
    use crate::{
        corefile::Corefile,
        counters::Ledgers,
        policy::Policy,
        wire::name::{LowerName, WireName},
    };

    fn pieces(log: &str) -> Vec<LogPiece> {
        let text = format!(".:53 {{\n {log}\n}}\n");
        let corefile = Corefile::parse(Path::new("Corefile"), &text, &|_| None).unwrap();
        corefile.blocks[0].logs[0].format.clone()
    }

    #[test]
    fn lines_are_as_coredns_writes_them() {
        let mut message = Message::query();
        message.metadata.id = 29008;
        let name = Name::from_ascii("Example.org.").unwrap();
        message.queries.push(Query::query(name, RecordType::A));
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.edns = Some(edns);
        let query = message.to_vec().unwrap();
        let source = "[::1]:50759".parse().unwrap();
        let request = Request::from_bytes(query.clone(), source, Protocol::Udp).unwrap();
        let mut reply = query.clone();
        (reply[2], reply[3], reply[7]) = (0x81, 0xa0, 1);
        let (_, plain) = seen(&request).unwrap();
        let logged = Logged {
            request: &request,
            asked: Asked::new(&query, source, false, 0).at(Some([10, 96, 0, 10].into())),
            plain: &plain,
            reply: &reply,
            code: 0,
            took: Duration::from_nanos(37_990_251),
        };
        let common = "[::1]:50759 - 29008 \"A IN example.org. udp 40 false 4096\" NOERROR qr,rd,ra,ad \
                      40 0.037990251s";
        let cases = [
            ("log", common.to_owned()),
            ("log . \"{combined}\"", format!("{common} \"0\"")),
            ("log . \"{common}!\"", format!("{common}!")),
            (
                r#"log example.org "{\"type\":\"{type}\",{x},\"kind\":\"{/log/class} {/log/type}\"}""#,
                r#"{"type":"A",{x},"kind":"success NOERROR"}"#.to_owned(),
            ),
            ("log \"{proto} {>do\"", "udp {>do".to_owned()),
            ("log \"{remote} {local}\"", "[::1] 10.96.0.10".to_owned()),
        ];
        for (log, wanted) in cases {
            assert_eq!(logged.line(&pieces(log)), wanted, "{log}");
        }
    }

    /// What CoreDNS v1.15 wrote when it was asked the same.
    #[test]
    fn names_types_and_sizes_are_as_coredns_writes_them() {
        let format = pieces(r#"log "{type} {class} {name} {>bufsize} {rcode} {>rflags}""#);
        let line = |name: &[u8], qtype: u16, class: u16, tcp: bool, code: Option<u16>| {
            let fixed = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name].concat();
            let query = [fixed, qtype.to_be_bytes().into(), class.to_be_bytes().into()].concat();
            let transport = if tcp { Protocol::Tcp } else { Protocol::Udp };
            let source = "192.0.2.1:53".parse().unwrap();
            let request = Request::from_bytes(query.clone(), source, transport).unwrap();
            let (_, plain) = seen(&request).unwrap();
            let reply = if code.is_some() { &query[..] } else { &[] };
            let (asked, code) = (Asked::new(&query, source, tcp, 0), code.unwrap_or(0));
            let took = Duration::ZERO;
            Logged { request: &request, asked, plain: &plain, reply, code, took }.line(&format)
        };
        let cases = [
            (line(b"\x01T\0", 1, 1, false, Some(0)), "A IN t. 512 NOERROR rd"),
            (line(b"\x01t\0", 65280, 1, false, Some(3)), "TYPE65280 IN t. 512 NXDOMAIN rd"),
            (line(b"\x01t\0", 29, 3, false, Some(5)), "LOC CH t. 512 REFUSED rd"),
            (line(b"\x03a b\0", 28, 1, true, Some(2)), "AAAA IN a\\ b. 65535 SERVFAIL rd"),
            (line(b"\0", 2, 1, false, Some(13)), "NS IN . 512 13 rd"),
            // `acl` has dropped it.
            (line(b"\x01t\0", 1, 1, false, None), "A IN t. 512 - -"),
        ];
        for (line, wanted) in cases {
            assert_eq!(line, wanted);
        }
    }

    #[test]
    fn the_first_line_of_several_that_holds_a_name_decides() {
        let text = ".:53 {\n log deep.example \"one {rcode}\" {\n class error\n }\n \
                    log example other.test \"two {rcode}\" {\n class denial\n class success\n }\n \
                    log svc.test\n}\n";
        let corefile = Corefile::parse(Path::new("Corefile"), text, &|_| None).unwrap();
        let policy = Policy::new(&corefile, &[], &Ledgers::default()).unwrap();
        let site = policy.sites().next().unwrap();
        let one = Some(LogPiece::Text("one ".to_owned()));
        let two = Some(LogPiece::Text("two ".to_owned()));
        let usual = Some(LogPiece::Field(LogField::Remote));
        let cases = [
            ("x.deep.example", LogClass::Error, one),
            // The second would want it.
            ("x.deep.example", LogClass::Success, None),
            ("example", LogClass::Success, two.clone()),
            ("x.other.test", LogClass::Denial, two),
            ("x.example", LogClass::Error, None),
            ("svc.test", LogClass::Error, usual),
            ("test", LogClass::Error, None),
        ];
        for (name, class, wanted) in cases {
            let mut lower = LowerName::new();
            lower.read(WireName::from_text(name).unwrap().as_bytes()).unwrap();
            let first = site.log_format(&lower, class).and_then(|format| format.first().cloned());
            assert_eq!(first, wanted, "{name} {class:?}");
            assert_eq!(site.is_logged(&lower), name != "test", "{name}");
        }
    }
}
