//! The switch that makes a node pack what it sends to nodes that do so, too.

/// So many bytes, as a number: every node of the process packs messages and answers above that.
const VARIABLE: &str = "MOBULA_COMPRESS_ABOVE";

/// Above how many bytes the environment asks to pack, if it does.
pub(crate) fn asked_above() -> Option<usize> {
    let value = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty())?;
    let bytes = value.parse();
    if bytes.is_err() {
        tracing::warn!("{VARIABLE}={value:?} is no number of bytes: nothing is compressed");
    }
    bytes.ok()
}
