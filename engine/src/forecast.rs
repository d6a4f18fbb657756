//! The event loop with ideal agents: plays the present forward.
