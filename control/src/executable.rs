//! Programs on their way to the nodes that run them: named by their BLAKE3 hash, cut into parts, each compressed by itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use mobula_core::cluster::{Executable, ExecutableHash};
use mobula_core::limits;

use crate::client::Client;
use crate::elf;
use crate::error::ControlError;
use crate::request::{HasExecutable, Part, PutExecutable};

/// Level 1: executables come out at a third of their size, faster than most networks would take the rest.
const LEVEL: i32 = 1;

/// Names the program in `file` by its content.
///
/// # Errors
/// What the system says; `InvalidInput` beyond [`limits::EXECUTABLE_BYTES_MAX`].
pub fn identify(file: &mut File) -> io::Result<Executable> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = blake3::Hasher::new();
    let max = limits::EXECUTABLE_BYTES_MAX;
    let bytes = io::copy(&mut file.take(max + 1), &mut hasher)?;
    if bytes > max {
        let text = format!("ExecutableTooLarge: at most {max} bytes are accepted");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(Executable { hash: ExecutableHash(*hasher.finalize().as_bytes()), bytes })
}

impl Part {
    /// The part of `file` that begins at `offset`; an empty one at its end.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(file: &mut File, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(limits::EXECUTABLE_PART_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(Part { offset, compressed: zstd::bulk::compress(&bytes, LEVEL)? })
    }

    /// The bytes of the file, at most [`limits::EXECUTABLE_PART_BYTES`]: what claims to be more is an error, and nothing is allocated
    /// for it.
    ///
    /// # Errors
    /// `InvalidData`.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        zstd::bulk::decompress(&self.compressed, limits::EXECUTABLE_PART_BYTES).map_err(|error| {
            let text = format!(
                "a part of an executable that is none, or one beyond {} bytes: {error}",
                limits::EXECUTABLE_PART_BYTES
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

/// Sees to it that the head has the program at `path`, and names it.
///
/// # Errors
/// [`ControlError`]; what is no program is not handed in. Dropping the future is harmless: another try begins anew.
pub async fn hand_in(client: &Client, path: &Path) -> Result<Executable, ControlError> {
    let unreadable = |error: io::Error| ControlError::Executable { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(unreadable)?;
    elf::platform(&mut file).map_err(|why| ControlError::BadProgram { path: path.to_owned(), why })?;
    let executable = identify(&mut file).map_err(unreadable)?;
    if client.ask(HasExecutable { executable }).await? {
        return Ok(executable);
    }
    let mut offset = 0;
    while offset < executable.bytes {
        let part = Part::read(&mut file, offset).map_err(unreadable)?;
        client.ask(PutExecutable { executable, part }).await?;
        offset += limits::EXECUTABLE_PART_BYTES as u64;
    }
    Ok(executable)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_program_is_its_parts() {
        let mut file = tempfile::tempfile().expect("a file");
        let content: Vec<u8> = (0..limits::EXECUTABLE_PART_BYTES + 1000).map(|i| (i / 7) as u8).collect();
        file.write_all(&content).expect("room");
        let executable = identify(&mut file).expect("readable");
        assert_eq!(executable.bytes, content.len() as u64);
        assert_eq!(executable.hash.0, *blake3::hash(&content).as_bytes());
        let first = Part::read(&mut file, 0).expect("readable");
        let second = Part::read(&mut file, limits::EXECUTABLE_PART_BYTES as u64).expect("readable");
        assert!(first.compressed.len() < limits::EXECUTABLE_PART_BYTES / 2);
        assert_eq!([first.bytes().expect("own"), second.bytes().expect("own")].concat(), content);
        assert!(Part::read(&mut file, executable.bytes).expect("its end").bytes().expect("own").is_empty());
    }

    #[test]
    fn a_part_that_would_swell_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; limits::EXECUTABLE_PART_BYTES + 1], LEVEL).expect("compressed");
        for compressed in [bomb, b"garbage".to_vec()] {
            let error = Part { offset: 0, compressed }.bytes().expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
