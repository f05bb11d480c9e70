use std::{fmt, net::IpAddr, ops::Deref};

/// Addresses of one object. There is nearly always one, which needs no allocation of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Addresses(Held);

/// One address is always `One`, so that equal lists are equal.
#[derive(Clone, PartialEq, Eq)]
enum Held {
    One(IpAddr),
    Other(Box<[IpAddr]>),
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Held::One(address) => std::slice::from_ref(address),
            Held::Other(addresses) => addresses,
        }
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self(match addresses.as_slice() {
            [address] => Held::One(*address),
            _ => Held::Other(addresses.into()),
        })
    }
}

impl<const N: usize> From<[IpAddr; N]> for Addresses {
    fn from(addresses: [IpAddr; N]) -> Self {
        Vec::from(addresses).into()
    }
}

impl From<&[IpAddr]> for Addresses {
    fn from(addresses: &[IpAddr]) -> Self {
        addresses.to_vec().into()
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().collect::<Vec<_>>().into()
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
