//! Compiles the .proto files with protox, so that no system protoc is needed.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files: Vec<_> = std::fs::read_dir("proto")?.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|ext| ext == "proto"));
    let mut names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    names.sort();
    let descriptors = protox::compile(names, ["proto"])?;
    // What clients may know: their own API, with its comments; for reflection and for the JSON schemas.
    let client = protox::compile(["client.proto"], ["proto"])?;
    let out: PathBuf = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?.into();
    std::fs::write(out.join("client.descriptors"), client.encode_to_vec())?;
    std::fs::write(out.join("all.descriptors"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .type_attribute(".muster.client.v1", "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]")
        // Bytes have no good form in JSON; clients print a log chunk's data themselves.
        .field_attribute(".muster.client.v1.LogChunk.data", "#[serde(skip)]")
        .field_attribute(".muster.client.v1.BackupChunk.data", "#[serde(skip)]")
        .btree_map(".muster.client.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
