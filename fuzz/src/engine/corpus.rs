//! Kept inputs: one text file for each target, one input a line, in hex.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the inputs in version control are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs of a target's file; none if there is no file.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let line =
        |(at, line): (usize, &str)| from_hex(line).with_context(|| format!("{}:{} is not hex", path.display(), at + 1));
    text.lines().enumerate().map(line).collect()
}

/// Replaces a target's file by `inputs`, sorted and each once.
pub fn write(path: &Path, inputs: &[Vec<u8>]) -> Result<()> {
    let lines: BTreeSet<(usize, String)> = inputs.iter().map(|input| (input.len(), to_hex(input))).collect();
    let text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_survive_their_file() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("x");
        assert_eq!(read(&path).expect("none"), Vec::<Vec<u8>>::new());
        let inputs = vec![b"b\0\xff".to_vec(), b"".to_vec(), b"a".to_vec(), b"a".to_vec()];
        write(&path, &inputs).expect("written");
        assert_eq!(read(&path).expect("read"), [&b""[..], b"a", b"b\0\xff"]);
        fs::write(&path, "0g\n").expect("written");
        assert!(read(&path).expect_err("not hex").to_string().contains(":1"));
    }
}
