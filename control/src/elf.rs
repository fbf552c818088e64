//! What a file is that is to run as a program, read from its first bytes. They are a claim: little is read, and nothing of it is believed to be in bounds.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use mobula_core::cluster::{Libc, Platform};

/// Program headers that are looked at; real programs have about a dozen.
const HEADERS_MAX: u16 = 128;
/// Bytes of the path of a loader, with its 0.
const LOADER_BYTES_MAX: u64 = 4096;
/// Of a program header that names the loader.
const INTERPRETER: u32 = 3;
/// What runs: a program at fixed addresses, or at any.
const EXECUTABLE_TYPES: [u16; 2] = [2, 3];
/// System V, as Linux has it, and GNU.
const SYSTEMS: [u8; 2] = [0, 3];

/// Why a file cannot run as a program on any Linux host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadProgram {
    /// It is something else.
    #[error("it is {found}: what runs is an ELF program for Linux, or a script that begins with `#!`")]
    NoProgram {
        /// What, as far as can be told.
        found: &'static str,
    },
    /// Its header says what cannot be.
    #[error("it is an ELF file that is damaged or cut off: {what}; build or copy it again")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What the program at `path` was built for; none for a script, whose interpreter knows.
///
/// # Errors
/// [`BadProgram`]. May block.
pub fn platform_of(path: &Path) -> Result<Option<Platform>, BadProgram> {
    platform(&mut File::open(path)?)
}

/// The same of a file that is open.
pub(crate) fn platform(file: &mut (impl Read + Seek)) -> Result<Option<Platform>, BadProgram> {
    let start = read(file, 0, 64)?;
    if start.starts_with(b"#!") {
        return Ok(None);
    }
    if !start.starts_with(b"\x7fELF") {
        return Err(BadProgram::NoProgram { found: found(&start) });
    }
    let header = Fields { bytes: &start, big: start.get(5) == Some(&2), wide: start.get(4) == Some(&2) };
    let is_known = matches!(start.get(4), Some(1 | 2)) && matches!(start.get(5), Some(1 | 2));
    let (kind, machine) = (header.u16(16)?, header.u16(18)?);
    if !is_known {
        return Err(BadProgram::Damaged { what: "its class or its byte order is none" });
    }
    if !start.get(7).is_some_and(|system| SYSTEMS.contains(system)) {
        return Err(BadProgram::NoProgram { found: "an ELF program for another system than Linux" });
    }
    if !EXECUTABLE_TYPES.contains(&kind) {
        return Err(BadProgram::NoProgram { found: "an ELF file that is no program, as an object file" });
    }
    let libc = loader(file, &header)?.as_deref().and_then(libc_of);
    Ok(Some(Platform { machine: machine_name(machine, header.wide), libc }))
}

/// The path of the loader that the program names, if it names one.
fn loader(file: &mut (impl Read + Seek), header: &Fields<'_>) -> Result<Option<String>, BadProgram> {
    let (at, size, count) = match header.wide {
        true => (header.u64(32)?, header.u16(54)?, header.u16(56)?),
        false => (u64::from(header.u32(28)?), header.u16(42)?, header.u16(44)?),
    };
    let size_min = if header.wide { 56 } else { 32 };
    if count > HEADERS_MAX || (count > 0 && size < size_min) {
        return Err(BadProgram::Damaged { what: "its program headers are too many or too small" });
    }
    for number in 0..count {
        let offset = at.checked_add(u64::from(number) * u64::from(size)).ok_or(OUTSIDE)?;
        let bytes = read(file, offset, u64::from(size_min))?;
        let entry = Fields { bytes: &bytes, ..*header };
        if entry.u32(0)? != INTERPRETER {
            continue;
        }
        let (path_at, length) = match header.wide {
            true => (entry.u64(8)?, entry.u64(32)?),
            false => (u64::from(entry.u32(4)?), u64::from(entry.u32(16)?)),
        };
        let path = read(file, path_at, length.min(LOADER_BYTES_MAX))?;
        if length > LOADER_BYTES_MAX || path.len() as u64 != length {
            return Err(BadProgram::Damaged { what: "the path of its loader lies outside the file, or is too long" });
        }
        return Ok(Some(String::from_utf8_lossy(&path).trim_end_matches('\0').to_owned()));
    }
    Ok(None)
}

const OUTSIDE: BadProgram = BadProgram::Damaged { what: "its program headers lie outside the file" };

/// `bytes` from there on, or as many as there are.
fn read(file: &mut (impl Read + Seek), at: u64, bytes: u64) -> Result<Vec<u8>, BadProgram> {
    // Beyond this no file system goes, and some take it for a mistake of the program.
    if i64::try_from(at).is_err() {
        return Err(OUTSIDE);
    }
    file.seek(SeekFrom::Start(at))?;
    let mut read = Vec::new();
    file.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// Numbers in the file's byte order.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    big: bool,
    wide: bool,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], BadProgram> {
        let found = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
        let mut bytes = *found.ok_or(BadProgram::Damaged { what: "its header ends too early" })?;
        if !self.big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u16(&self, at: usize) -> Result<u16, BadProgram> {
        self.array(at).map(u16::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, BadProgram> {
        self.array(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, BadProgram> {
        self.array(at).map(u64::from_be_bytes)
    }
}

/// As Rust calls it; another by its number.
fn machine_name(number: u16, is_wide: bool) -> String {
    let name = match (number, is_wide) {
        (62, true) => "x86_64",
        (3, false) => "x86",
        (183, true) => "aarch64",
        (40, false) => "arm",
        (243, true) => "riscv64",
        (243, false) => "riscv32",
        (258, true) => "loongarch64",
        (21, true) => "powerpc64",
        (20, false) => "powerpc",
        (22, true) => "s390x",
        (43, true) => "sparc64",
        (8, true) => "mips64",
        (8, false) => "mips",
        _ => return format!("machine{number}{}", if is_wide { "" } else { "/32" }),
    };
    name.to_owned()
}

fn libc_of(loader: &str) -> Option<Libc> {
    let name = loader.rsplit('/').next().unwrap_or_default();
    if name.starts_with("ld-musl") {
        Some(Libc::Musl)
    } else if name.starts_with("ld-linux") || name.starts_with("ld64.so") || name.starts_with("ld.so") {
        Some(Libc::Gnu)
    } else {
        // Whoever has put it there knows.
        None
    }
}

fn found(start: &[u8]) -> &'static str {
    match start {
        [] => "empty",
        [b'M', b'Z', ..] => "a program for Windows",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "a program for macOS",
        _ => "no program",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A header of 64 bits for `machine`, with a program header that names this loader.
    fn elf(machine: u16, loader: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\x00".to_vec();
        bytes.resize(64, 0);
        bytes[16..18].copy_from_slice(&3_u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes.resize(64 + 56, 0);
        bytes[64..68].copy_from_slice(&INTERPRETER.to_le_bytes());
        bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
        bytes.extend_from_slice(loader.as_bytes());
        bytes.push(0);
        bytes
    }

    fn of(bytes: &[u8]) -> Result<Option<Platform>, BadProgram> {
        platform(&mut Cursor::new(bytes))
    }

    fn text(bytes: &[u8]) -> String {
        of(bytes)
            .map_or_else(|error| error.to_string(), |found| found.map_or_else(String::new, |found| found.to_string()))
    }

    #[test]
    fn the_processor_and_the_library_are_in_the_header() {
        assert_eq!(text(&elf(62, "/lib64/ld-linux-x86-64.so.2")), "x86_64-linux-gnu");
        assert_eq!(text(&elf(183, "/lib/ld-musl-aarch64.so.1")), "aarch64-linux-musl");
        assert_eq!(text(&elf(243, "/nix/store/some/loader")), "riscv64-linux");
        assert_eq!(text(&elf(999, "/lib/ld.so.1")), "machine999-linux-gnu");
        let mut alone = elf(62, "");
        alone[64] = 1;
        assert_eq!(text(&alone), "x86_64-linux");
        // Of 32 bits, and its numbers the other way round.
        let mut other = b"\x7fELF\x01\x02\x01\x00".to_vec();
        other.resize(52, 0);
        (other[17], other[19]) = (2, 20);
        assert_eq!(text(&other), "powerpc-linux");
        assert_eq!(of(b"#!/bin/sh\n").expect("a script"), None);
        let own = platform_of(&std::env::current_exe().expect("Linux")).expect("it runs").expect("no script");
        assert_eq!(own.machine, std::env::consts::ARCH);
    }

    #[test]
    fn what_is_no_program_is_named() {
        for (bytes, said) in [
            (&b""[..], "empty"),
            (b"MZ\x90\x00", "Windows"),
            (b"\xcf\xfa\xed\xfe", "macOS"),
            (b"hello", "no program"),
            (b"\x7fELF", "ends too early"),
        ] {
            let text = text(bytes);
            assert!(text.contains(said), "{text}");
        }
        for (at, value, said) in [
            (7, 9, "another system"),
            (16, 1, "object file"),
            (4, 3, "class"),
            (56, 200, "too many"),
            (54, 8, "too small"),
        ] {
            let mut bytes = elf(62, "/lib64/ld-linux-x86-64.so.2");
            bytes[at] = value;
            let text = text(&bytes);
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn no_header_makes_it_read_much_or_panic() {
        let good = elf(62, "/lib64/ld-linux-x86-64.so.2");
        for end in 0..good.len() {
            let _ = of(&good[..end]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = of(&bytes);
            }
        }
        for (at, name) in [(32, "the headers"), (72, "the path"), (96, "its length")] {
            let mut bytes = good.clone();
            bytes[at..at + 8].fill(0xff);
            assert!(matches!(of(&bytes), Err(BadProgram::Damaged { .. })), "{name} outside the file");
        }
    }
}
