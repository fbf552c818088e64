//! The page `docs/book/counted-lines.md` counts its lines as it says.

const PAGE: &str = include_str!("../../docs/book/counted-lines.md");

/// Lines of the first block of code under `heading` that are neither blank nor comments.
fn counted(heading: &str) -> usize {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading)).expect("a section");
    let code = section.split("```").nth(1).expect("a block of code");
    let is_code = |line: &&str| {
        !line.trim().is_empty() && !line.trim().starts_with("//") && !line.trim().starts_with('#')
            || line.trim().starts_with("#[")
    };
    // The first line says which language it is.
    code.lines().skip(1).filter(is_code).count()
}

#[test]
fn the_table_says_how_many_lines_there_are() {
    let rows: Vec<Vec<&str>> = PAGE
        .lines()
        .filter(|line| line.starts_with("| ["))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), PAGE.matches("\n## ").count());
    for row in rows {
        let name = row[1].trim_start_matches('[').split(']').next().expect("a name");
        assert_eq!(row[3].parse(), Ok(counted(name)), "{name}");
    }
}
