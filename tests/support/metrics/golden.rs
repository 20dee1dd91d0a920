//! Files that are written by a test when asked to, and compared otherwise.

use std::path::Path;

/// Compares `text` with the file at `path` below the crate, or writes it there under `BLESS=1`.
pub(crate) fn check(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&file, text).expect("write the file");
        return;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let Some(line) = (1..)
        .zip(written.split('\n').map(Some).chain(std::iter::repeat(None)))
        .zip(text.split('\n').map(Some).chain([None]))
        .find(|((_, written), wanted)| written != wanted)
    else {
        return;
    };
    let ((number, written), wanted) = line;
    panic!(
        "{path} is not up to date at line {number}\n  there:  {written:?}\n  wanted: {wanted:?}\n\
         If the change is meant: make bless, then read the diff"
    );
}
