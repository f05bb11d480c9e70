//! Who is sent a copy of each request.

use super::{
    external::{Url, url},
    template::{Template, host},
    value::{Read, switch},
};

/// What an Ingress says about copies.
#[derive(Clone, Debug)]
pub(crate) struct Mirroring {
    url: Option<Url>,
    host: Option<Template>,
    bodies: bool,
}

/// Where copies go.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    pub(crate) url: Url,
    /// Host as the mirror sees it; the URL's if absent.
    pub(crate) host: Option<Template>,
    /// Bodies are copied, too.
    pub(crate) bodies: bool,
}

impl Default for Mirroring {
    fn default() -> Self {
        Self { url: None, host: None, bodies: true }
    }
}

impl Mirroring {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "mirror-target" => url(value).map(|url| self.url = Some(url)),
            "mirror-host" => host(value).map(|host| self.host = Some(host)),
            "mirror-request-body" => switch(value).map(|on| self.bodies = on),
            _ => return None,
        })
    }

    pub(super) fn copies(&self) -> Option<Copies> {
        let (url, host) = (self.url.clone()?, self.host.clone());
        Some(Copies { url, host, bodies: self.bodies })
    }
}

#[cfg(test)]
impl Copies {
    /// With their bodies.
    pub(crate) fn to(target: &str) -> Self {
        let mut mirroring = Mirroring::default();
        assert!(matches!(mirroring.set("mirror-target", target), Some(Ok(()))), "{target}");
        mirroring.copies().unwrap()
    }
}
