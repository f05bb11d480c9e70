//! Answers of our own.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SERVER},
};

use super::body::ResponseBody;
use crate::codec::Unanswered;

/// Who answers, where the upstream does not say.
pub(super) static SERVER_NAME: HeaderValue = HeaderValue::from_static("fairlead");

/// A status and one line of text.
pub(super) fn text(status: StatusCode, line: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::text(line));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(line.len()));
    headers.insert(SERVER, SERVER_NAME.clone());
    response
}

/// The same, with a text that was made for the request, of a type of its own.
pub(super) fn own_text(
    status: StatusCode,
    line: String,
    media_type: Option<HeaderValue>,
) -> Response<ResponseBody> {
    let mut response = text(status, "");
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(line.len()));
    if let Some(media_type) = media_type {
        headers.insert(CONTENT_TYPE, media_type);
    }
    *response.body_mut() = ResponseBody::own(line);
    response
}

/// Nothing is said to the client; the status is for whoever counts.
pub(super) fn none(status: StatusCode) -> Response<ResponseBody> {
    let mut response = text(status, "");
    response.extensions_mut().insert(Unanswered);
    response
}

/// Where to ask instead; 308 and 307 keep method and body.
pub(super) fn redirect(status: StatusCode, location: HeaderValue) -> Response<ResponseBody> {
    let mut response = text(status, "This is found elsewhere.\n");
    response.headers_mut().insert(LOCATION, location);
    response
}

/// What a status means here, for whoever reads it in a terminal.
pub(super) fn status(status: StatusCode) -> Response<ResponseBody> {
    text(
        status,
        match status {
            StatusCode::NOT_FOUND => "No Ingress rule matches this host and path.\n",
            StatusCode::SERVICE_UNAVAILABLE => {
                "The Service behind this path has no ready endpoint.\n"
            }
            StatusCode::BAD_GATEWAY => "The endpoint behind this path did not answer properly.\n",
            StatusCode::GATEWAY_TIMEOUT => {
                "The endpoint behind this path did not answer in time.\n"
            }
            StatusCode::REQUEST_TIMEOUT => "The request's body did not arrive in time.\n",
            StatusCode::METHOD_NOT_ALLOWED => "This method is not served.\n",
            StatusCode::PAYLOAD_TOO_LARGE => "The request's body is too large.\n",
            StatusCode::URI_TOO_LONG => "The request's target is too long.\n",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The request has too many fields.\n",
            StatusCode::NOT_IMPLEMENTED => "The request's transfer coding is not served.\n",
            _ => "The request cannot be served as it is.\n",
        },
    )
}

/// To a preflight, as ingress-nginx's template has it.
pub(super) fn preflight() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let text = HeaderValue::from_static("text/plain charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
