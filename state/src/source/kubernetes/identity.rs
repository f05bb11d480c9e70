//! The client certificate that a kubeconfig names by its files. Kubelets replace theirs
//! (`kubelet-client-current.pem`) long before it ends, so each handshake shows what is there now, as
//! client-go does (transport/cert_rotation.go).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::config::AuthInfo;
use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// The files, and what was last good in them.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Certificate and key as read last, good or not.
    read: Option<[Vec<u8>; 2]>,
    certified: Option<Arc<CertifiedKey>>,
    said: Option<String>,
}

/// Why files are no identity.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} and {}: {reason}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, reason: String },
}

impl Identity {
    /// `None`: it is no matter of files.
    pub(super) fn of(auth: &AuthInfo) -> Option<Self> {
        if auth.client_certificate_data.is_some()
            || auth.client_key_data.is_some()
            || auth.exec.is_some()
        {
            return None;
        }
        let (certificate, key) = (auth.client_certificate.as_ref()?, auth.client_key.as_ref()?);
        Some(Self::new(certificate.into(), key.into()))
    }

    fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, held: Mutex::default() }
    }

    /// Has `tls` show it. A resumed session would be that of the certificate before.
    pub(super) fn shown_by(self, tls: &mut ClientConfig) {
        tls.client_auth_cert_resolver = Arc::new(self);
        tls.resumption = Resumption::disabled();
    }

    /// What the files hold; what they held last, while that is nothing good.
    fn current(&self) -> Option<Arc<CertifiedKey>> {
        let mut held = self.lock();
        match self.read(&mut held) {
            Ok(()) => held.said = None,
            Err(error) => {
                let reason = error.to_string();
                if held.said.as_ref() != Some(&reason) {
                    tracing::warn!("client certificate: {reason}; the last good one is shown");
                    held.said = Some(reason);
                }
            }
        }
        held.certified.clone()
    }

    fn read(&self, held: &mut Held) -> Result<(), IdentityError> {
        let file = |path: &Path| {
            fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
        };
        let read = [file(&self.certificate)?, file(&self.key)?];
        if held.read.as_ref() == Some(&read) && held.said.is_none() {
            return Ok(());
        }
        let [certificate, key] = &read;
        let certified = certified(certificate, key).map_err(|reason| IdentityError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason,
        })?;
        held.certified = Some(Arc::new(certified));
        held.read = Some(read);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Of one file that is replaced between two looks the parts do not match: the next look finds both.
fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("there is no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// Certificate and key, as PEM.
    fn issued(name: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key);
        [certificate.unwrap().pem(), key.serialize_pem()]
    }

    #[test]
    fn bug_a_certificate_that_is_replaced_is_shown_from_then_on_and_a_broken_one_never() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("kubelet-client-current.pem");
        let identity = Identity::new(path.clone(), path.clone());
        let shown = || identity.current().map(|shown| shown.cert[0].to_vec());
        assert_eq!(shown(), None, "nothing is there yet");
        let [first, second] = ["first", "second"].map(issued);
        let der = |[certificate, _]: &[String; 2]| {
            CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()
        };
        for (text, expected) in [
            (first.concat(), &first),
            (second.concat(), &second),
            (String::new(), &second),
            (format!("{}{}", first[0], second[1]), &second),
            (first.concat(), &first),
        ] {
            fs::write(&path, &text).unwrap();
            assert_eq!(shown(), Some(der(expected)), "{text}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(shown(), Some(der(&first)));
    }
}
