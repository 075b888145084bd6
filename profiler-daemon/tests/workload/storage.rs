//! Threads that wait for a disk, and threads that wait for a page.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Advice as FileAdvice, OFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, UserfaultfdFlags};
use rustix::time::Timespec;
use rustix::{ioctl, mm};

use crate::crew::{Crew, Flag, Unavailable};
use crate::truth::Expect;

/// Length of the files that are read.
const FILE_BYTES: usize = 64 << 20;

/// A page on x86-64, and the smallest one on arm64; also a multiple of any disk's sector.
const PAGE: usize = 4096;

/// A file of [`FILE_BYTES`] on the disk, with its content written through. Removed when dropped.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(crew: &Crew) -> Result<Self> {
        let name = format!("schedscope-workload-{}.data", std::process::id());
        let path = crew.options.dir.join(name);
        let mut file = File::create(&path)
            .with_context(|| format!("creating '{}'; see --dir", path.display()))?;
        let scratch = Self { path };
        let block = vec![0x5a; 1 << 20];
        for _ in 0..FILE_BYTES / block.len() {
            file.write_all(&block).context("writing the file")?;
        }
        file.sync_all().context("fsync of the file")?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing better can be done than leave the file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A fixed, well-spread order of pages, in which readahead finds no pattern.
struct Shuffle(u64);

impl Shuffle {
    fn page(&mut self) -> usize {
        // A full-period linear congruential generator (Knuth's MMIX constants).
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % (FILE_BYTES / PAGE)
    }
}

/// Reads that go to the disk each time (`O_DIRECT`).
pub(crate) fn disk_read(crew: &mut Crew) -> Result<()> {
    let scratch = Scratch::new(crew)?;
    let flags = i32::try_from(OFlags::DIRECT.bits()).context("O_DIRECT")?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&scratch.path)
        .map_err(|error| {
            Unavailable(format!(
                "'{}' can't be read without the page cache ({error}); name a directory on a disk by --dir",
                scratch.path.display()
            ))
        })?;
    crew.thread(
        "reader",
        Expect::blocked("disk-io", "block"),
        move |meter, stop| {
            let _scratch = scratch;
            // Direct reads need an aligned buffer.
            let mut memory = vec![0; 2 * PAGE];
            let start = memory.as_ptr().align_offset(PAGE);
            let buffer = &mut memory[start..start + PAGE];
            let mut order = Shuffle(1);
            while !stop.due() {
                let offset = u64::try_from(order.page() * PAGE)?;
                meter
                    .wait(|| file.read_exact_at(buffer, offset))
                    .context("reading the file directly")?;
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// `fsync` after each small write.
pub(crate) fn fsync(crew: &mut Crew) -> Result<()> {
    let scratch = Scratch::new(crew)?;
    let mut file = OpenOptions::new()
        .write(true)
        .open(&scratch.path)
        .context("opening the file")?;
    crew.thread(
        "syncer",
        Expect::blocked("fs-sync", "block"),
        move |meter, stop| {
            let _scratch = scratch;
            let block = [0xa5; PAGE];
            let mut order = Shuffle(1);
            while !stop.due() {
                let offset = u64::try_from(order.page() * PAGE)?;
                file.seek(SeekFrom::Start(offset)).context("seek")?;
                file.write_all(&block).context("write")?;
                meter.wait(|| file.sync_all()).context("fsync")?;
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// Memory that was mapped, until dropped.
struct Mapping {
    address: *mut std::ffi::c_void,
    length: usize,
}

#[expect(
    unsafe_code,
    reason = "a mapping is used from another thread than it was made by"
)]
// SAFETY: the mapping belongs to the process, not to a thread, and has one owner.
unsafe impl Send for Mapping {}

#[expect(unsafe_code, reason = "two threads use a mapping")]
// SAFETY: nothing can be written through a shared reference, and what is read is read as volatile.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file, read-only and without readahead.
    #[expect(unsafe_code, reason = "memory mapping")]
    fn file(file: &File) -> Result<Self> {
        let (null, length) = (ptr::null_mut(), FILE_BYTES);
        // SAFETY: the kernel chooses where; nothing else is mapped over.
        let address = unsafe { mm::mmap(null, length, ProtFlags::READ, MapFlags::SHARED, file, 0) };
        let mapping = Self {
            address: address.context("mapping the file")?,
            length,
        };
        mapping.advise(Advice::Random)?;
        Ok(mapping)
    }

    /// Maps fresh memory.
    #[expect(unsafe_code, reason = "memory mapping")]
    fn anonymous(length: usize) -> Result<Self> {
        let (null, rights) = (ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: the kernel chooses where; nothing else is mapped over.
        let address = unsafe { mm::mmap_anonymous(null, length, rights, MapFlags::PRIVATE) };
        Ok(Self {
            address: address.context("mapping memory")?,
            length,
        })
    }

    #[expect(unsafe_code, reason = "memory mapping")]
    fn advise(&self, advice: Advice) -> Result<()> {
        // SAFETY: the range is this mapping, into which no reference exists; it is read by volatile
        // reads of a file that only this process knows, so dropping its pages changes nothing.
        unsafe { mm::madvise(self.address, self.length, advice) }.context("madvise")
    }

    /// Allows what is allowed already, and forbids writing in between.
    #[expect(unsafe_code, reason = "memory mapping")]
    fn protect(&self) -> Result<()> {
        for rights in [
            MprotectFlags::READ,
            MprotectFlags::READ | MprotectFlags::WRITE,
        ] {
            // SAFETY: the range is this mapping, which nobody writes to.
            unsafe { mm::mprotect(self.address, self.length, rights) }.context("mprotect")?;
        }
        Ok(())
    }

    /// Reads the first byte of a page.
    #[expect(unsafe_code, reason = "memory mapping")]
    fn touch(&self, page: usize) -> u8 {
        let byte = self
            .address
            .cast::<u8>()
            .wrapping_add(page * PAGE % self.length);
        // SAFETY: the offset is below the length of the mapping, which is readable.
        unsafe { byte.read_volatile() }
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "memory mapping")]
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping, and no reference into it exists.
        let _ = unsafe { mm::munmap(self.address, self.length) };
    }
}

/// Touches pages of a mapped file that are not in memory: another thread throws out again and again
/// what has come in, since that may take waits of its own.
pub(crate) fn page_fault(crew: &mut Crew) -> Result<()> {
    let scratch = Scratch::new(crew)?;
    let file = File::open(&scratch.path).context("opening the file")?;
    let mapping = Arc::new(Mapping::file(&file)?);
    let period = crew.options.period_or(20);
    let touched = Arc::clone(&mapping);
    let expect = Expect::blocked("page-fault", "block");
    crew.thread("toucher", expect, move |meter, stop| {
        let _scratch = scratch;
        let mut order = Shuffle(1);
        while !stop.due() {
            let page = order.page();
            meter.wait(|| touched.touch(page));
        }
        Ok(())
    })?;
    crew.thread("evictor", Expect::mixed(), move |_, stop| {
        let all = NonZeroU64::new(u64::try_from(FILE_BYTES)?);
        while !stop.due() {
            // What is mapped stays in memory, so it is unmapped first.
            mapping.advise(Advice::LinuxDontNeed)?;
            rustix::fs::fadvise(&file, 0, all, FileAdvice::DontNeed).context("posix_fadvise")?;
            thread::sleep(period);
        }
        Ok(())
    })?;
    Ok(())
}

/// Changes a page's protection, for which the kernel locks the map of the process's memory, while
/// another thread fills memory under the same lock.
pub(crate) fn mmap_lock(crew: &mut Crew) -> Result<()> {
    let page = Mapping::anonymous(PAGE)?;
    crew.thread(
        "waiter",
        Expect::blocked("kernel-lock", "holder"),
        move |meter, stop| {
            while !stop.due() {
                meter.wait(|| page.protect())?;
            }
            Ok(())
        },
    )?;
    crew.thread("holder", Expect::mixed(), |_, stop| {
        let memory = Mapping::anonymous(FILE_BYTES)?;
        while !stop.due() {
            memory.advise(Advice::LinuxDontNeed)?;
            memory.advise(Advice::LinuxPopulateWrite)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// `UFFD_API`, `UFFDIO_API` and so on (include/uapi/linux/userfaultfd.h): only what is used here.
mod uffd {
    use rustix::ioctl::{Opcode, opcode};

    /// Version of the interface.
    pub(super) const API_VERSION: u64 = 0xaa;
    /// `UFFDIO_REGISTER_MODE_MISSING`.
    pub(super) const MISSING: u64 = 1;

    #[repr(C)]
    pub(super) struct Api {
        pub(super) version: u64,
        pub(super) features: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(super) struct Range {
        pub(super) start: u64,
        pub(super) length: u64,
    }

    #[repr(C)]
    pub(super) struct Register {
        pub(super) range: Range,
        pub(super) mode: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    pub(super) struct ZeroPage {
        pub(super) range: Range,
        pub(super) mode: u64,
        pub(super) zeroed: i64,
    }

    pub(super) const API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
    pub(super) const REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0x00);
    pub(super) const ZERO_PAGE: Opcode = opcode::read_write::<ZeroPage>(0xaa, 0x04);
}

/// Opens a userfault descriptor over a mapping.
#[expect(unsafe_code, reason = "userfaultfd changes what memory does")]
fn userfault(memory: &Mapping) -> Result<OwnedFd> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: it is used on a mapping that this workload made for it, and on nothing else.
    let fd = match unsafe { mm::userfaultfd(flags) } {
        Err(Errno::PERM | Errno::NOSYS) => {
            return Err(Unavailable(
                "userfaultfd is not allowed here; see sysctl vm.unprivileged_userfaultfd"
                    .to_owned(),
            )
            .into());
        }
        fd => fd.context("userfaultfd")?,
    };
    let mut api = uffd::Api {
        version: uffd::API_VERSION,
        features: 0,
        ioctls: 0,
    };
    // SAFETY: the opcode takes this structure.
    let hello = unsafe { ioctl::Updater::<{ uffd::API }, _>::new(&mut api) };
    // SAFETY: it reads and writes only the structure.
    unsafe { ioctl::ioctl(&fd, hello) }.context("UFFDIO_API")?;
    let mut register = uffd::Register {
        range: uffd::Range {
            start: u64::try_from(memory.address.addr())?,
            length: u64::try_from(memory.length)?,
        },
        mode: uffd::MISSING,
        ioctls: 0,
    };
    // SAFETY: the opcode takes this structure.
    let register = unsafe { ioctl::Updater::<{ uffd::REGISTER }, _>::new(&mut register) };
    // SAFETY: the range is the mapping, which nothing else uses.
    unsafe { ioctl::ioctl(&fd, register) }.context("UFFDIO_REGISTER")?;
    Ok(fd)
}

/// Touches pages that another thread provides, after a while each (`userfaultfd`).
pub(crate) fn userfaultfd(crew: &mut Crew) -> Result<()> {
    let period = crew.options.period_or(20);
    let memory = Mapping::anonymous(1024 * PAGE)?;
    let fd = userfault(&memory)?;
    let start = u64::try_from(memory.address.addr())?;
    let over = Flag::default();
    let ended = Arc::clone(&over);
    // The page that is touched next; the provider needs no message to know it.
    let next = Arc::new(AtomicU64::new(0));
    let wanted = Arc::clone(&next);
    let expect = Expect::blocked("page-fault", "provider");
    crew.thread("toucher", expect, move |meter, stop| {
        let mut page = 0;
        while !stop.due() {
            if page == memory.length / PAGE {
                // All are there; away with them.
                memory.advise(Advice::LinuxDontNeed)?;
                page = 0;
            }
            wanted.store(u64::try_from(page)?, Ordering::Release);
            meter.wait(|| memory.touch(page));
            page += 1;
        }
        over.store(true, Ordering::Release);
        Ok(())
    })?;
    crew.thread(
        "provider",
        Expect::blocked("sleep", "timer"),
        move |meter, _| {
            let patience = Timespec::try_from(Duration::from_millis(5)).context("the patience")?;
            while !ended.load(Ordering::Acquire) {
                meter.wait(|| thread::sleep(period));
                let ready =
                    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience));
                if ready.context("poll")? == 0 {
                    continue;
                }
                let mut message = [0; 32];
                let length = rustix::io::read(&fd, &mut message).context("reading the fault")?;
                ensure!(length == 32, "a fault of 32 bytes expected, got {length}");
                let page = next.load(Ordering::Acquire);
                provide(&fd, start + page * PAGE as u64)?;
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// Puts a page of zeros at an address, which wakes who waits for it.
#[expect(unsafe_code, reason = "userfaultfd changes what memory does")]
fn provide(fd: &OwnedFd, address: u64) -> Result<()> {
    let mut page = uffd::ZeroPage {
        range: uffd::Range {
            start: address,
            length: PAGE as u64,
        },
        mode: 0,
        zeroed: 0,
    };
    // SAFETY: the opcode takes this structure.
    let update = unsafe { ioctl::Updater::<{ uffd::ZERO_PAGE }, _>::new(&mut page) };
    // SAFETY: the kernel writes only to pages that were registered, and are missing.
    unsafe { ioctl::ioctl(fd, update) }.context("UFFDIO_ZEROPAGE")
}
