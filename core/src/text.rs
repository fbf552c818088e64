//! Texts of peers and of processes, as far as they are shown.

/// As much of the front of a text as has `bytes_max` bytes at most, cut between letters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// As [`cut`], and with U+FFFD for each control character: it can neither move a cursor nor begin a line of a log.
pub fn printable(text: &str, bytes_max: usize) -> String {
    cut(text, bytes_max).replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!((cut("abc", 3), cut("abc", 2), cut("abc", 0), cut("", 5)), ("abc", "ab", "", ""));
        assert_eq!((cut("xää", 5), cut("xää", 4), cut("xää", 3), cut("ä", 1)), ("xää", "xä", "xä", ""));
    }

    #[test]
    fn what_moves_a_cursor_is_shown_as_a_sign() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{85}", 100), "a\u{fffd}\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("a\nb", 2), "a\u{fffd}");
    }
}
