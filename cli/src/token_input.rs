//! Reads a token from where nobody else can see it.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use mobula_identity::{Token, read_private};
use zeroize::Zeroizing;

use crate::args::TokenInput;
use crate::failure::Failure;

/// A token has 186 characters.
const TEXT_BYTES_MAX: u64 = 4096;

/// True if flags say where a token is.
pub(crate) fn is_given(input: &TokenInput) -> bool {
    input.token.is_some() || input.token_file.is_some() || input.token_fd.is_some()
}

/// The token, from where the flags say.
pub(crate) fn read(input: &TokenInput) -> Result<Token, Failure> {
    if input.token.is_some() {
        return Err(Failure::usage(
            "--token: a token on the command line is visible to others; use --token-file, --token-fd or stdin (--token-file -)",
        ));
    }
    let text = match (&input.token_file, input.token_fd) {
        (Some(path), _) if path == Path::new("-") => from(stdin().lock())?,
        (Some(path), _) => match read_private(path) {
            Ok(Some(bytes)) => utf8(&bytes)?,
            Ok(None) => return Err(Failure::usage(format!("--token-file {}: there is no such file", path.display()))),
            Err(error) => return Err(Failure::not_permitted(error)),
        },
        (None, Some(fd)) => from(open_descriptor(fd)?)?,
        (None, None) => {
            return Err(Failure::usage(
                "--address takes a token the first time: make one on the head's host with `mobula token create`, and give it by --token-file, --token-fd or \
                 stdin (--token-file -)",
            ));
        }
    };
    Token::parse(&text).map_err(Failure::usage)
}

fn open_descriptor(fd: i32) -> Result<File, Failure> {
    // Through the kernel's table of this process, which needs no unsafe code and takes nothing away from anybody.
    File::open(format!("/proc/self/fd/{fd}")).map_err(|error| Failure::usage(format!("--token-fd {fd}: {error}")))
}

fn from(reader: impl Read) -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    reader.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    utf8(&bytes)
}

fn utf8(bytes: &[u8]) -> Result<Zeroizing<String>, Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::usage("the token is no text")),
    }
}
