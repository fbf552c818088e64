//! Reads `docs/protocol.md`: its blocks of bytes and its tables.

/// A block that begins with three backticks and `bytes name=value`.
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Page(String);

impl Page {
    pub(crate) fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
        Page(std::fs::read_to_string(path).expect("the page is there"))
    }

    /// The blocks of one name, in their order on the page.
    pub(crate) fn examples(&self, name: &str) -> Vec<Example> {
        let mut examples = Vec::new();
        let mut lines = self.0.lines();
        while let Some(line) = lines.next() {
            let Some(info) = line.strip_prefix("```bytes") else { continue };
            let (name, value) = info.trim().split_once('=').expect("a block says `bytes name=value`");
            let hex: String = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
                .collect();
            let digit = |digit: u8| (digit as char).to_digit(16).expect("hexadecimal") as u8;
            assert!(hex.len().is_multiple_of(2), "half a byte in {info}");
            let bytes = hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
            examples.push(Example { name: name.to_owned(), value: value.to_owned(), bytes });
        }
        examples.retain(|example| example.name == name);
        assert!(!examples.is_empty(), "no block says `bytes {name}=`");
        examples
    }

    /// The one block `bytes name=value`.
    #[allow(dead_code, reason = "not every test that shares this file needs it")]
    pub(crate) fn example(&self, value: &str) -> Vec<u8> {
        let mut found = self.examples("name").into_iter().filter(|example| example.value == value);
        let example = found.next().unwrap_or_else(|| panic!("no block says `bytes name={value}`"));
        assert!(found.next().is_none(), "two blocks say `bytes name={value}`");
        example.bytes
    }

    /// The rows of the table whose first column is headed `heading`, as trimmed cells.
    #[allow(dead_code, reason = "not every test that shares this file needs it")]
    pub(crate) fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
        };
        let mut lines = self.0.lines().skip_while(|line| !line.starts_with('|') || cells(line)[0] != heading);
        assert!(lines.next().is_some(), "no table begins with `{heading}`");
        lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
    }
}

/// Says where two byte strings part, in the form of the page.
pub(crate) fn assert_same(name: &str, page: &[u8], code: &[u8]) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let same = page.iter().zip(code).take_while(|(page, code)| page == code).count();
    assert!(
        page == code,
        "{name} differs from byte {same} on\n the page says ..{}\n the code says ..{}",
        hex(&page[same..]),
        hex(&code[same..])
    );
}
