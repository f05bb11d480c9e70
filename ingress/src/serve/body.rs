//! Bodies in both directions, streamed.

mod answered;
mod progress;
mod recall;
mod request;
mod response;
mod spliced;

use std::io;

pub(crate) use self::{
    answered::Carrier,
    progress::{Progress, Upload},
    recall::Recall,
    request::RequestBody,
    response::{ResponseBody, Source},
    spliced::Spliced,
};
use crate::codec::{Malformed, h2};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection it came on failed.
    #[error("{0}")]
    Connection(#[from] hyper::Error),
    /// The client broke off its stream.
    #[error("{0}")]
    Stream(#[from] h2::Broken),
    /// The endpoint's connection failed.
    #[error("the endpoint's connection broke: {0}")]
    Endpoint(#[from] io::Error),
    /// The endpoint says what cannot be believed, or not all of it.
    #[error("{0}")]
    Answer(#[from] Malformed),
    /// The endpoint answered before it had all of a request that then broke off.
    #[error("the request's body broke off while it was answered")]
    Request,
    /// The client takes no more.
    #[error("the client's connection broke: {0}")]
    Client(io::Error),
    /// More came than is allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It could not be compressed.
    #[error("the body could not be compressed: {0}")]
    Compression(io::Error),
    /// It is sent elsewhere.
    #[error("the request is sent to somebody else")]
    Recalled,
    /// Nothing came for too long.
    #[error("no part of the body arrived in time")]
    TimedOut,
}
