//! Who may make which call. Asked on every call, of the certificate on the connection.

use muster_engine::command::Principal;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::identity::{ConnectInfo, Peer, Role, check_word};
use tonic::metadata::MetadataMap;

/// Metadata key with which a server says for whom it forwards a call, as `role/name`.
pub const ON_BEHALF_OF: &str = "muster-on-behalf-of";

const PEOPLE: &[Role] = &[Role::User, Role::Admin];
const ADMINS: &[Role] = &[Role::Admin];

/// Every call of the service, with the roles that may make it. What is not listed is refused.
pub const CALLS: &[(&str, &[Role])] = &[
    ("Submit", PEOPLE),
    ("ListJobs", PEOPLE),
    ("ShowJob", PEOPLE),
    ("Why", PEOPLE),
    ("WhyAll", PEOPLE),
    ("Cancel", PEOPLE),
    ("Hold", PEOPLE),
    ("Retry", PEOPLE),
    ("Wait", PEOPLE),
    ("Logs", PEOPLE),
    ("Events", PEOPLE),
    ("ListNodes", PEOPLE),
    ("ShowNode", PEOPLE),
    ("ClusterStatus", PEOPLE),
    ("Version", PEOPLE),
    ("NodeAdmin", ADMINS),
    ("NodeToken", ADMINS),
    ("Configure", ADMINS),
    ("Plan", PEOPLE),
    ("ListQueues", PEOPLE),
    ("ShowQueue", PEOPLE),
    ("EditJob", PEOPLE),
    ("ShowPolicy", PEOPLE),
    ("MakeReservation", ADMINS),
    ("EndReservation", ADMINS),
    ("ListReservations", PEOPLE),
    ("ShowReservation", PEOPLE),
    ("ChangeMembers", ADMINS),
    ("TransferLeader", ADMINS),
    ("Backup", ADMINS),
];

/// Who makes a call, after all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub role: Role,
    /// Another server passed the call on; it is answered here or refused, never passed on again.
    pub forwarded: bool,
}

impl Caller {
    pub fn principal(&self) -> Principal {
        Principal(self.name.as_str().into())
    }

    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// As another server is told it.
    pub fn on_behalf_of(&self) -> String {
        format!("{}/{}", self.role, self.name)
    }

    pub fn owns(&self, owner: &Principal) -> bool {
        *owner.0 == *self.name
    }

    /// Jobs are changed by their owner or an admin.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for anybody else.
    pub fn check_owner(&self, owner: &Principal, what: &str) -> Result<(), ErrorInfo> {
        if self.is_admin() || self.owns(owner) {
            return Ok(());
        }
        let message = format!("{what} belongs to {}; {} may not change it", owner.0, self.name);
        Err(ErrorInfo::new(ErrorCode::Forbidden, message).hint("ask its owner or an admin"))
    }
}

/// Whoever a connection belongs to, whatever they may call.
///
/// # Errors
/// [`ErrorCode::NotLoggedIn`] or [`ErrorCode::CertificateExpired`].
pub fn certificate(info: Option<&ConnectInfo>, now_ms: u64) -> Result<&Peer, ErrorInfo> {
    let peer = info.and_then(|info| info.peer.as_ref()).ok_or_else(|| {
        ErrorInfo::new(ErrorCode::NotLoggedIn, "the connection shows no certificate")
            .hint("use the identity an admin gave you: --identity, MUSTER_IDENTITY or `identity` in the settings file")
    })?;
    if peer.expired(now_ms) {
        let message = format!("the certificate of {} {} has expired", peer.role, peer.name);
        return Err(ErrorInfo::new(ErrorCode::CertificateExpired, message).hint("ask an admin for a new identity"));
    }
    Ok(peer)
}

/// The caller of `call`, if it may make it.
///
/// # Errors
/// [`ErrorCode::NotLoggedIn`], [`ErrorCode::CertificateExpired`] or [`ErrorCode::Forbidden`].
pub fn check(call: &str, info: Option<&ConnectInfo>, metadata: &MetadataMap, now_ms: u64) -> Result<Caller, ErrorInfo> {
    let peer = certificate(info, now_ms)?;
    let caller = caller_of(peer, metadata)?;
    let allowed = CALLS.iter().find(|(name, _)| *name == call).map_or(&[][..], |(_, roles)| roles);
    if allowed.contains(&caller.role) {
        return Ok(caller);
    }
    let who = if allowed.is_empty() {
        "nobody"
    } else if allowed == ADMINS {
        "an admin"
    } else {
        "a user or an admin"
    };
    let message = format!("{} {} may not call {call}; {who} may", caller.role, caller.name);
    Err(ErrorInfo::new(ErrorCode::Forbidden, message).hint("use an identity with that role"))
}

fn caller_of(peer: &Peer, metadata: &MetadataMap) -> Result<Caller, ErrorInfo> {
    let forbidden = |message: String| ErrorInfo::new(ErrorCode::Forbidden, message);
    let mut claims = metadata.get_all(ON_BEHALF_OF).iter();
    let claim = claims.next();
    if claims.next().is_some() {
        return Err(forbidden(format!("`{ON_BEHALF_OF}` is given twice")));
    }
    let Some(claim) = claim else {
        return Ok(Caller { name: peer.name.clone(), role: peer.role, forwarded: false });
    };
    if !peer.is(Role::Server) {
        let message = format!("{} {} may not act for others; only servers pass calls on", peer.role, peer.name);
        return Err(forbidden(message));
    }
    let unreadable = || forbidden(format!("`{ON_BEHALF_OF}` names no principal"));
    let (role, name) = claim.to_str().ok().and_then(|text| text.split_once('/')).ok_or_else(unreadable)?;
    let role: Role = role.parse().map_err(|_| unreadable())?;
    check_word("principal", name).map_err(|_| unreadable())?;
    if !PEOPLE.contains(&role) {
        return Err(forbidden(format!("a server passes on calls of users and admins, not of a {role}")));
    }
    Ok(Caller { name: name.to_owned(), role, forwarded: true })
}
