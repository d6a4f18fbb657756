//! The client API's own description: its calls, messages and fields.

use muster_proto::CLIENT_DESCRIPTORS;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor};

const SERVICE: &str = "muster.client.v1.Muster";
/// How people name a job.
const JOB_REF: &str = "muster.client.v1.JobRef";

/// Made once for each server.
#[derive(Debug, Clone)]
pub struct Api {
    service: ServiceDescriptor,
}

impl Default for Api {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    pub fn new() -> Self {
        let pool = DescriptorPool::decode(CLIENT_DESCRIPTORS).expect("the build wrote it");
        Self { service: pool.get_service_by_name(SERVICE).expect("the client API is one service") }
    }

    /// The names of all calls, to compare the table with.
    #[cfg(test)]
    pub fn calls(&self) -> impl Iterator<Item = String> + '_ {
        self.service.methods().map(|method| method.name().to_owned())
    }

    /// What a call takes.
    ///
    /// # Panics
    /// For a name that is no call.
    pub fn input(&self, call: &str) -> MessageDescriptor {
        self.method(call).input()
    }

    /// What a call answers with.
    ///
    /// # Panics
    /// For a name that is no call.
    pub fn output(&self, call: &str) -> MessageDescriptor {
        self.method(call).output()
    }

    /// The comment on a call.
    pub fn comment(&self, call: &str) -> String {
        let method = self.method(call);
        comment(&self.service.parent_file(), method.path())
    }

    fn method(&self, call: &str) -> prost_reflect::MethodDescriptor {
        let method = self.service.methods().find(|method| method.name() == call);
        method.unwrap_or_else(|| panic!("{call} is no call of {SERVICE}"))
    }
}

/// The comment above a field.
pub fn field_comment(field: &FieldDescriptor) -> String {
    comment(&field.parent_file(), field.path())
}

/// The comment above a message.
pub fn message_comment(message: &MessageDescriptor) -> String {
    comment(&message.parent_file(), message.path())
}

fn comment(file: &prost_reflect::FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let place = info.and_then(|info| info.location.iter().find(|place| place.path == path));
    let text = place.map(|place| place.leading_comments().trim()).unwrap_or_default();
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// A field's name in a request: JSON that the message carries as text is given as it is.
pub fn request_name(field: &FieldDescriptor) -> String {
    match field.name() {
        "spec_json" => "spec".to_owned(),
        "json" => "value".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether the field's text is JSON, given and shown as such.
pub fn is_open_json(field: &FieldDescriptor) -> bool {
    matches!(field.name(), "spec_json" | "json")
}

/// Whether a value of this kind names a job, and may be written as people write it.
pub fn is_job_ref(kind: &Kind) -> bool {
    kind.as_message().is_some_and(|message| message.full_name() == JOB_REF)
}
