//! Compiles the .proto files with protox, so that no system protoc is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files: Vec<_> = std::fs::read_dir("proto")?.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|ext| ext == "proto"));
    let mut names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    names.sort();
    let descriptors = protox::compile(names, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .type_attribute(".muster.client.v1", "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]")
        // Bytes have no good form in JSON; clients print a log chunk's data themselves.
        .field_attribute(".muster.client.v1.LogChunk.data", "#[serde(skip)]")
        .btree_map(".muster.client.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
