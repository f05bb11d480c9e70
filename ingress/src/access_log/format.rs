//! What a line says: text with nginx's variables, read once.

use std::{fmt, str::FromStr, sync::Arc};

use http::HeaderName;

use super::text::Escape;
use crate::routes::variable_name;

/// ingress-nginx's `upstreaminfo`.
const UPSTREAMINFO: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
    $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length $request_time \
    [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr \
    $upstream_response_length $upstream_response_time $upstream_status $req_id";
const JSON: &str = "{\"time\":\"$time_iso8601\",\"remote_addr\":\"$remote_addr\",\
    \"remote_user\":\"$remote_user\",\"method\":\"$request_method\",\"host\":\"$host\",\
    \"uri\":\"$request_uri\",\"protocol\":\"$server_protocol\",\"scheme\":\"$scheme\",\
    \"status\":$status,\"body_bytes_sent\":$body_bytes_sent,\"request_length\":$request_length,\
    \"request_time\":$request_time,\"referer\":\"$http_referer\",\
    \"user_agent\":\"$http_user_agent\",\"namespace\":\"$namespace\",\
    \"ingress\":\"$ingress_name\",\"service\":\"$service_name\",\
    \"service_port\":\"$service_port\",\"upstream_addr\":\"$upstream_addr\",\
    \"upstream_status\":\"$upstream_status\",\
    \"upstream_response_time\":\"$upstream_response_time\",\"request_id\":\"$req_id\"}";
/// Parts of one format.
const PARTS_MAX: usize = 256;
const TEXT_BYTES_MAX: usize = 16 << 10;

/// A format, as `upstreaminfo`, `json`, or text with nginx's variables.
#[derive(Clone, PartialEq, Eq)]
pub struct LogFormat {
    written: Arc<str>,
    pub(super) parts: Arc<[Part]>,
    pub(super) escape: Escape,
}

/// A line is these one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(Box<[u8]>),
    /// Only the request knows it: written down when its head is there.
    Early(Early),
    /// Written when the answer is out.
    Late(Late),
}

/// What is written down of a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// `$request`: method, target and protocol.
    Request,
    /// `$request_uri`: path and query as received.
    RequestUri,
    /// `$uri`: the path in normal form.
    Uri,
    Args,
    IsArgs,
    Method,
    Protocol,
    Host,
    HttpHost,
    /// `$best_http_host`: the one the client used.
    BestHttpHost,
    RemoteUser,
    Header(HeaderName),
    Cookie(Box<str>),
    Arg(Box<str>),
}

/// What is known of a request when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The client, as whoever is believed names it.
    RemoteAddr,
    /// Who connected.
    ConnectedAddr,
    /// The client a PROXY header names.
    ProxiedAddr,
    ServerPort,
    /// Of the connection.
    Scheme,
    /// The one the client used.
    PassAccessScheme,
    TlsProtocol,
    TimeLocal,
    TimeIso8601,
    Msec,
    Status,
    BodyBytesSent,
    BytesSent,
    RequestLength,
    RequestTime,
    RequestId,
    /// `NAMESPACE-SERVICE-PORT` of the Service the rule names.
    UpstreamName,
    /// The same of the canary that was taken instead.
    AlternativeName,
    UpstreamAddr,
    UpstreamStatus,
    UpstreamConnectTime,
    UpstreamHeaderTime,
    UpstreamResponseTime,
    UpstreamResponseLength,
    Namespace,
    IngressName,
    ServiceName,
    ServicePort,
    /// Path as the rule states it.
    LocationPath,
}

const LATE: [(&str, Late); 32] = [
    ("remote_addr", Late::RemoteAddr),
    ("the_real_ip", Late::RemoteAddr),
    ("realip_remote_addr", Late::ConnectedAddr),
    ("proxy_protocol_addr", Late::ProxiedAddr),
    ("server_port", Late::ServerPort),
    ("scheme", Late::Scheme),
    ("pass_access_scheme", Late::PassAccessScheme),
    ("ssl_protocol", Late::TlsProtocol),
    ("time_local", Late::TimeLocal),
    ("time_iso8601", Late::TimeIso8601),
    ("msec", Late::Msec),
    ("status", Late::Status),
    ("body_bytes_sent", Late::BodyBytesSent),
    ("bytes_sent", Late::BytesSent),
    ("request_length", Late::RequestLength),
    ("request_time", Late::RequestTime),
    ("req_id", Late::RequestId),
    ("request_id", Late::RequestId),
    ("proxy_upstream_name", Late::UpstreamName),
    ("proxy_alternative_upstream_name", Late::AlternativeName),
    ("upstream_addr", Late::UpstreamAddr),
    ("upstream_status", Late::UpstreamStatus),
    ("upstream_connect_time", Late::UpstreamConnectTime),
    ("upstream_header_time", Late::UpstreamHeaderTime),
    ("upstream_response_time", Late::UpstreamResponseTime),
    ("upstream_response_length", Late::UpstreamResponseLength),
    ("upstream_bytes_received", Late::UpstreamResponseLength),
    ("namespace", Late::Namespace),
    ("ingress_name", Late::IngressName),
    ("service_name", Late::ServiceName),
    ("service_port", Late::ServicePort),
    ("location_path", Late::LocationPath),
];

impl LogFormat {
    /// Text with variables, for lines of text.
    ///
    /// # Errors
    /// Names the variable that is not known.
    pub fn text(text: &str) -> Result<Self, String> {
        Self::parse(text, Escape::Text)
    }

    /// Text with variables whose values stand in strings of JSON.
    ///
    /// # Errors
    /// As [`LogFormat::text`].
    pub fn json(text: &str) -> Result<Self, String> {
        Self::parse(text, Escape::Json)
    }

    fn parse(text: &str, escape: Escape) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX || text.contains(['\n', '\r']) {
            return Err("it is too long, or more than a line".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(before.as_bytes().into()));
            }
            let (name, after) = variable_name(after).ok_or("a $ without a variable")?;
            let known = part(name);
            parts.push(known.ok_or_else(|| {
                format!("${name} is not known here; what is: docs/access-log.md")
            })?);
            rest = after;
        }
        parts.push(Part::Text(rest.as_bytes().into()));
        if parts.len() > PARTS_MAX {
            return Err("it has too many variables".to_owned());
        }
        Ok(Self { written: text.into(), parts: parts.into(), escape })
    }
}

impl Default for LogFormat {
    /// ingress-nginx's `upstreaminfo`.
    fn default() -> Self {
        Self::text(UPSTREAMINFO).unwrap_or_else(|_| Self {
            written: "".into(),
            parts: Arc::default(),
            escape: Escape::Text,
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "upstreaminfo" => Self::text(UPSTREAMINFO),
            "json" => Self::json(JSON),
            text => Self::text(text),
        }
    }
}

impl fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFormat").field(&self.written).finish()
    }
}

fn part(name: &str) -> Option<Part> {
    let early = match name {
        "request" => Early::Request,
        "request_uri" => Early::RequestUri,
        "uri" | "document_uri" => Early::Uri,
        "args" | "query_string" => Early::Args,
        "is_args" => Early::IsArgs,
        "request_method" => Early::Method,
        "server_protocol" => Early::Protocol,
        "host" | "server_name" => Early::Host,
        "http_host" => Early::HttpHost,
        "best_http_host" => Early::BestHttpHost,
        "remote_user" => Early::RemoteUser,
        _ => return late(name).map(Part::Late).or_else(|| named(name).map(Part::Early)),
    };
    Some(Part::Early(early))
}

fn late(name: &str) -> Option<Late> {
    LATE.iter().find(|(known, _)| *known == name).map(|(_, late)| *late)
}

fn named(name: &str) -> Option<Early> {
    if let Some(field) = name.strip_prefix("http_") {
        let field = field.replace('_', "-");
        return HeaderName::from_bytes(field.as_bytes()).ok().map(Early::Header);
    }
    if let Some(cookie) = name.strip_prefix("cookie_") {
        return Some(Early::Cookie(cookie.into()));
    }
    name.strip_prefix("arg_").map(|argument| Early::Arg(argument.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_variables_are_named() {
        for (text, wrong) in [
            ("$status $uptream_addr", Some("$uptream_addr")),
            ("$sent_http_x", Some("$sent_http_x")),
            ("100$", Some("a $ without a variable")),
            ("$1", Some("$1")),
            ("a\nb", Some("more than a line")),
            ("plain", None),
            ("${status}s $http_x_forwarded_for $cookie_sid $arg_q", None),
            ("upstreaminfo", None),
            ("json", None),
        ] {
            match (text.parse::<LogFormat>(), wrong) {
                (Ok(_), None) => {}
                (Err(reason), Some(wrong)) => assert!(reason.contains(wrong), "{text}: {reason}"),
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn the_usual_format_is_not_empty() {
        assert_eq!(LogFormat::default(), "upstreaminfo".parse().unwrap());
    }
}
