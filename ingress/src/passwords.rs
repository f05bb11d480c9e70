//! Passwords as htpasswd writes them, and who has given the right one a moment ago.

mod checks;
mod hash;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use fairlead_state::Name;
use http::HeaderValue;

use self::{checks::Checks, hash::Hash};

/// A slow hash is not computed again for the same words within this.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Pairs of words remembered per Ingress.
const REMEMBERED_MAX: usize = 4096;
/// A hash takes the longer the longer the password is; nobody's is longer, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Users and what their passwords hash to.
#[derive(Default)]
pub(crate) struct Passwords {
    users: HashMap<Box<str>, Hash>,
    /// How many users' hashes are not taken, by why not: nobody can be them.
    unread: BTreeMap<&'static str, usize>,
}

/// Lets in who gives a user's password.
pub(crate) struct Gate {
    passwords: Arc<Passwords>,
    pub(crate) challenge: HeaderValue,
    /// What is remembered says nothing without this, which never leaves the process.
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    checks: Checks,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotIn {
    /// No words, or the wrong ones.
    Wrong,
    /// Too many are being checked.
    Busy,
}

impl Passwords {
    /// Lines of `USER:HASH`; empty ones and comments are none. A hash that cannot be read is
    /// nobody's.
    pub(crate) fn parse(file: &[u8]) -> Self {
        let lines = file.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        Self::of_entries(lines.filter_map(|line| {
            let at = memchr::memchr(b':', line)?;
            let (user, hash) = line.split_at_checked(at)?;
            // htpasswd's third part is a comment.
            let hash = hash.get(1..)?.split(|b| *b == b':').next()?;
            Some((std::str::from_utf8(user).ok()?, hash))
        }))
    }

    pub(crate) fn of_entries<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut passwords = Self::default();
        for (user, hash) in entries {
            match Hash::parse(hash.trim_ascii()) {
                Ok(hash) => _ = passwords.users.insert(user.into(), hash),
                Err(reason) => {
                    tracing::warn!(user, "a password {reason}");
                    *passwords.unread.entry(reason).or_default() += 1;
                }
            }
        }
        passwords
    }

    fn accepts(&self, user: &str, password: &[u8]) -> bool {
        self.users.get(user).is_some_and(|hash| hash.is_of(password))
    }

    fn is_slow(&self, user: &str) -> bool {
        self.users.get(user).is_some_and(Hash::is_slow)
    }
}

impl Gate {
    /// Of an Ingress of this namespace.
    pub(crate) fn new(passwords: Passwords, challenge: HeaderValue, namespace: Name) -> Self {
        Self {
            passwords: Arc::new(passwords),
            challenge,
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
            remembered: Mutex::default(),
            checks: Checks::new(namespace),
        }
    }

    /// What keeps users out for good. Names no user: they may be a secret, too.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let unread = self.passwords.unread.iter();
        unread.map(|(reason, users)| {
            format!("users who cannot come in: {users}, whose password {reason}")
        })
    }

    /// Whether these words, `USER:PASSWORD`, let somebody in.
    pub(crate) async fn admits(&self, words: &[u8]) -> Result<(), NotIn> {
        let at = memchr::memchr(b':', words).ok_or(NotIn::Wrong)?;
        let (user, password) = words.split_at_checked(at).ok_or(NotIn::Wrong)?;
        let user = std::str::from_utf8(user).map_err(|_| NotIn::Wrong)?;
        let password = password.get(1..).unwrap_or_default();
        let verdict = |is_right: bool| if is_right { Ok(()) } else { Err(NotIn::Wrong) };
        if !self.passwords.is_slow(user) {
            return verdict(self.passwords.accepts(user, password));
        }
        let mark = self.mark(words);
        if self.remembers(&mark) {
            return Ok(());
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(NotIn::Wrong);
        }
        let (passwords, user, password) =
            (self.passwords.clone(), user.to_owned(), password.to_owned());
        let check = self.checks.run(move || passwords.accepts(&user, &password));
        let is_right = check.await.map_err(|_| NotIn::Busy)?;
        if is_right {
            self.remember(mark);
        }
        verdict(is_right)
    }

    fn mark(&self, words: &[u8]) -> [u8; 32] {
        let mut mark = [0; 32];
        let tag = hmac::sign(&self.key, words);
        mark.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mark
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(mark).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(mark, Instant::now());
        }
    }
}

impl fmt::Debug for Passwords {
    /// Hashes stay out of every log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.users.len()).finish()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("passwords", &self.passwords).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `htpasswd` and `openssl passwd` make of "secret".
    const FILE: &[u8] = b"# users\n\
        apr1:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n\
        md5:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1\n\
        sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
        plain:{PLAIN}secret\n\
        sha256:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.\n\
        sha512:$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.:a comment\r\n\
        \n\
        odd:whatever\n\
        empty:\n\
        no line of a user\n";

    fn gate(file: &[u8]) -> Gate {
        Gate::new(Passwords::parse(file), HeaderValue::from_static("Basic"), "shop".into())
    }

    #[tokio::test]
    async fn every_way_htpasswd_hashes_is_read_and_nothing_else_lets_in() {
        let bcrypt = format!("bcrypt:{}\n", bcrypt::hash("secret", 4).unwrap());
        let file = [FILE, bcrypt.as_bytes()].concat();
        let gate = gate(&file);
        for user in ["apr1", "md5", "sha", "plain", "sha256", "sha512", "bcrypt"] {
            for (password, expected) in [
                ("secret", Ok(())),
                ("Secret", Err(NotIn::Wrong)),
                ("", Err(NotIn::Wrong)),
                ("secret:", Err(NotIn::Wrong)),
            ] {
                // Twice: what is remembered is the same.
                for _ in 0..2 {
                    let words = format!("{user}:{password}");
                    assert_eq!(gate.admits(words.as_bytes()).await, expected, "{words}");
                }
            }
        }
        for words in
            ["odd:whatever", "odd:", "empty:", "nobody:secret", "secret", "", ":", ":secret"]
        {
            assert_eq!(gate.admits(words.as_bytes()).await, Err(NotIn::Wrong), "{words:?}");
        }
    }

    #[test]
    fn no_hash_is_shown() {
        let text = format!("{:?}", Passwords::parse(FILE));
        assert!(!text.contains("abcdefgh"), "{text}");
    }

    #[test]
    fn no_file_breaks_it() {
        for file in [&b""[..], b":", b"\xff:\xff", b"a:$apr1$", b"a:{SSHA}!!", b"a:$2y$", b"a:$6$x"]
        {
            let passwords = Passwords::parse(file);
            assert!(!passwords.accepts("a", b""), "{file:?}");
        }
    }

    /// One guess at it is hours of a processor.
    #[test]
    fn attack_a_hash_that_is_made_to_take_hours_is_nobody_s() {
        let bcrypt = |cost: &str| {
            format!("$2y${cost}$abcdefghijklmnopqrstuuMJ6MxTGcfuQe5MuHDV7LoTvNJFTWQ0u")
        };
        let sha = |rounds: &str| {
            format!(
                "$6${rounds}abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG."
            )
        };
        for (hash, is_read) in [
            (bcrypt("04"), true),
            (bcrypt("14"), true),
            (bcrypt("15"), false),
            (bcrypt("31"), false),
            (bcrypt("99"), false),
            (sha(""), true),
            (sha("rounds=1000000$"), true),
            (sha("rounds=1000001$"), false),
            (sha("rounds=999999999$"), false),
            (sha("rounds=99999999999999999999999$"), false),
            (sha("rounds=+9$"), false),
            (sha("rounds=$"), false),
        ] {
            let passwords = Passwords::parse(format!("a:{hash}").as_bytes());
            assert_eq!(passwords.users.contains_key("a"), is_read, "{hash}");
            assert_eq!(passwords.unread.is_empty(), is_read, "{hash}");
        }
    }

    #[tokio::test]
    async fn attack_a_password_as_long_as_a_header_is_not_hashed() {
        let gate = gate(FILE);
        let words = format!("sha512:{}", "a".repeat(PASSWORD_BYTES_MAX + 1));
        let asked = futures::FutureExt::now_or_never(gate.admits(words.as_bytes()));
        assert_eq!(asked, Some(Err(NotIn::Wrong)));
    }
}
