//! Hash and array maps, written and read in batches.

use std::{
    io,
    marker::PhantomData,
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use bytemuck::{AnyBitPattern, NoUninit};

use super::bpf::{bpf, raw};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_NOEXIST: u64 = 1;
/// Maps that grow on demand take memory from a small reserve which the kernel refills behind the
/// caller's back (kernel/bpf/memalloc.c): a burst of writes can outrun it and meet ENOMEM with
/// gigabytes free. So long is waited for the refill, and so often without any progress.
const STALL: Duration = Duration::from_millis(1);
const STALLS_MAX: u32 = 100;
/// Entries of one call: long enough to make the call's cost vanish, short enough not to hold a
/// core of the kernel for more than about a millisecond.
const BATCH_ENTRIES: usize = 4096;

/// A map of `K` to `V`. Both are checked against the map's sizes by whoever makes one.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    fd: OwnedFd,
    types: PhantomData<(K, V)>,
}

/// What a batch call worked with.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<K, V> Table<K, V>
where
    K: NoUninit + AnyBitPattern,
    V: NoUninit + AnyBitPattern,
{
    /// A table in the map `fd`, whose keys and values must be as long as `K` and `V`.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, types: PhantomData }
    }

    /// Another handle on the same map.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.fd.try_clone()?))
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.read(BPF_MAP_LOOKUP_ELEM, key)
    }

    /// Removes the entry under `key`, of a hash; its value as it was then.
    pub(crate) fn take(&self, key: &K) -> io::Result<Option<V>> {
        self.read(BPF_MAP_LOOKUP_AND_DELETE_ELEM, key)
    }

    fn read(&self, command: libc::c_long, key: &K) -> io::Result<Option<V>> {
        let mut value = V::zeroed();
        let mut attributes = self.element(key, &raw mut value as u64);
        // SAFETY: key and value are as long as the map's and outlive the call.
        match unsafe { bpf(command, &mut attributes) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds or replaces entries, in order. After an error some of them are in the map.
    pub(crate) fn put(&self, entries: &[(K, V)]) -> io::Result<()> {
        in_batches(
            entries,
            |_| false,
            |batch| {
                let keys: Vec<K> = batch.iter().map(|entry| entry.0).collect();
                let values: Vec<V> = batch.iter().map(|entry| entry.1).collect();
                let (done, result) =
                    self.batch(BPF_MAP_UPDATE_BATCH, &keys, values.as_ptr() as u64);
                if done > 0 || !result.as_ref().is_err_and(is_unsupported) {
                    return (done, result);
                }
                one_by_one(batch, |(key, value)| self.put_one(key, value))
            },
        )
    }

    /// Adds or replaces one entry.
    pub(crate) fn put_one(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attributes = self.element(key, &raw const *value as u64);
        // SAFETY: key and value are as long as the map's and outlive the call.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
    }

    /// Adds an entry, unless there is one under its key.
    pub(crate) fn add(&self, key: &K, value: &V) -> io::Result<()> {
        let attributes = self.element(key, &raw const *value as u64);
        let mut attributes = ElementAttributes { flags: BPF_NOEXIST, ..attributes };
        // SAFETY: key and value are as long as the map's and outlive the call.
        match unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) } {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes entries; those that are not there are no error.
    pub(crate) fn delete(&self, keys: &[K]) -> io::Result<()> {
        in_batches(keys, is_missing, |batch| {
            let (done, result) = self.batch(BPF_MAP_DELETE_BATCH, batch, 0);
            if done > 0 || !result.as_ref().is_err_and(is_unsupported) {
                return (done, result);
            }
            one_by_one(batch, |key| self.delete_one(key))
        })
    }

    fn delete_one(&self, key: &K) -> io::Result<()> {
        let mut attributes = self.element(key, 0);
        // SAFETY: the key is as long as the map's and outlives the call.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attributes) } {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Every entry, in no order. Not a snapshot: entries written meanwhile may be missing.
    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.scan(1, |keys, values| {
            entries.extend(keys.iter().copied().zip(values.iter().copied()));
        })?;
        Ok(entries)
    }

    /// Calls `take` with every entry, in no order and with little memory.
    pub(crate) fn each(&self, mut take: impl FnMut(&K, &V)) -> io::Result<()> {
        self.scan(1, |keys, values| {
            keys.iter().zip(values).for_each(|(key, value)| take(key, value));
        })
    }

    /// Calls `take` with keys and `per_key` values for each until all are seen. So many the map must
    /// have.
    fn scan(&self, per_key: usize, mut take: impl FnMut(&[K], &[V])) -> io::Result<()> {
        let mut room = BATCH_ENTRIES;
        // Opaque, at most as long as the longest key of any map used here.
        let mut position = [0u8; 64];
        let mut is_first = true;
        loop {
            let mut keys = vec![K::zeroed(); room];
            let mut values = vec![V::zeroed(); room.saturating_mul(per_key)];
            let mut next = [0u8; 64];
            let mut attributes = BatchAttributes {
                in_batch: if is_first { 0 } else { position.as_ptr() as u64 },
                out_batch: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(room).unwrap_or(u32::MAX),
                map: raw(self.fd.as_fd()),
                ..Default::default()
            };
            // SAFETY: there is room for `count` keys and their values, and all buffers outlive the call.
            let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
            let is_last = match result {
                Ok(_) => false,
                Err(error) if is_missing(&error) => true,
                // One bucket of the hash holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room = room.saturating_mul(2);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = usize::try_from(attributes.count).map_err(io::Error::other)?;
            let count = count.min(room);
            let filled = values.get(..count.saturating_mul(per_key)).unwrap_or_default();
            take(keys.get(..count).unwrap_or_default(), filled);
            if is_last {
                return Ok(());
            }
            position = next;
            is_first = false;
        }
    }

    /// How many entries were worked through, and whether that was all.
    fn batch(&self, command: libc::c_long, keys: &[K], values: u64) -> (usize, io::Result<()>) {
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut attributes = BatchAttributes {
            keys: keys.as_ptr() as u64,
            values,
            count,
            map: raw(self.fd.as_fd()),
            ..Default::default()
        };
        // SAFETY: `count` keys, and as many values where the command has any; all outlive the call.
        let result = unsafe { bpf(command, &mut attributes) }.map(drop);
        // Left as it was by kernels that do not know the command.
        let done = if result.as_ref().is_err_and(is_unsupported) { 0 } else { attributes.count };
        (usize::try_from(done).unwrap_or(usize::MAX), result)
    }

    fn element(&self, key: &K, value: u64) -> ElementAttributes {
        let key = &raw const *key as u64;
        ElementAttributes { map: raw(self.fd.as_fd()), key, value, ..Default::default() }
    }
}

impl<K, V> AsFd for Table<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A map with one value per key and possible CPU, each a multiple of eight bytes long.
#[derive(Debug)]
pub(crate) struct PerCpuTable<K, V> {
    table: Table<K, V>,
    cpus: usize,
}

impl<K, V> PerCpuTable<K, V>
where
    K: NoUninit + AnyBitPattern,
    V: NoUninit + AnyBitPattern,
{
    // The kernel rounds each CPU's value up to eight bytes.
    const MULTIPLE_OF_EIGHT: () = assert!(mem::size_of::<V>().is_multiple_of(8));

    /// As [`Table::new`]; `cpus` is the number of possible CPUs.
    pub(crate) fn new(fd: OwnedFd, cpus: usize) -> Self {
        let () = Self::MULTIPLE_OF_EIGHT;
        Self { table: Table::new(fd), cpus }
    }

    /// The values of all CPUs under `key`.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values = vec![V::zeroed(); self.cpus];
        let mut attributes = self.table.element(key, values.as_mut_ptr() as u64);
        // SAFETY: there is one value for each possible CPU, and all outlive the call.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
            Ok(_) => Ok(Some(values)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Another handle on the same map.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { table: self.table.try_clone()?, cpus: self.cpus })
    }

    /// Calls `take` with every key and the values of all CPUs, in no order.
    pub(crate) fn each(&self, mut take: impl FnMut(&K, &[V])) -> io::Result<()> {
        let cpus = self.cpus.max(1);
        self.table.scan(cpus, |keys, values| {
            keys.iter().zip(values.chunks_exact(cpus)).for_each(|(key, all)| take(key, all));
        })
    }

    /// As [`Table::delete`].
    pub(crate) fn delete(&self, keys: &[K]) -> io::Result<()> {
        self.table.delete(keys)
    }
}

/// Hands `items` to `call` in pieces of [`BATCH_ENTRIES`], from where it stopped: behind the item
/// it stopped at if that error `is_no_error`, at it again if memory is on its way.
fn in_batches<T>(
    items: &[T],
    is_no_error: impl Fn(&io::Error) -> bool,
    call: impl Fn(&[T]) -> (usize, io::Result<()>),
) -> io::Result<()> {
    let mut rest = items;
    let mut stalls = 0;
    while !rest.is_empty() {
        let batch = rest.get(..BATCH_ENTRIES).unwrap_or(rest);
        let (done, result) = call(batch);
        stalls = if done > 0 { 0 } else { stalls };
        let skipped = match result {
            Ok(()) => batch.len().saturating_sub(done),
            Err(error) if is_no_error(&error) => 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && stalls < STALLS_MAX => {
                stalls += 1;
                thread::park_timeout(STALL);
                0
            }
            Err(error) => return Err(error),
        };
        rest = rest.get(done.saturating_add(skipped)..).unwrap_or_default();
    }
    Ok(())
}

/// For kernels without batches: how many were done, and whether that was all.
fn one_by_one<T>(items: &[T], call: impl Fn(&T) -> io::Result<()>) -> (usize, io::Result<()>) {
    for (done, item) in items.iter().enumerate() {
        if let Err(error) = call(item) {
            return (done, Err(error));
        }
    }
    (items.len(), Ok(()))
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// Batches came with Linux 5.6, for some kinds of map later.
fn is_unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP))
}
