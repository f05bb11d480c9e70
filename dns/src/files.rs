//! Files that settings name: read whole, and never more of them than they may be large.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    time::SystemTime,
};

/// A file's bytes. Devices and pipes have no size that could be asked for first.
///
/// # Errors
/// It cannot be read, or there is more.
pub(crate) fn bytes_of(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::open(file)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("over {most} bytes are too many")));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// It cannot be read, there is more, or it is no UTF-8.
pub(crate) fn text_of(file: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(bytes_of(file, most)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// When a file was changed last; `None` if it cannot be asked.
pub(crate) fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_or_too_large_is_not_read_into_memory() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        for (bytes, is_read) in [(100, true), (101, false)] {
            fs::write(&large, vec![b'#'; bytes]).unwrap();
            assert_eq!(text_of(&large, 100).is_ok(), is_read, "{bytes}");
        }
        for (file, why) in [("/dev/zero", "too many"), ("/nonexistent", "No such file")] {
            let error = text_of(Path::new(file), 100).unwrap_err().to_string();
            assert!(error.contains(why), "{file}: {error}");
        }
        fs::write(&large, b"caf\xe9").unwrap();
        assert!(text_of(&large, 100).is_err() && bytes_of(&large, 100).is_ok());
    }
}
