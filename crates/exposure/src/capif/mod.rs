//! The CAPIF core function (TS 23.222, TS 29.222, TS 33.122): API providers register and publish, API invokers are onboarded,
//! discover, agree on a security method per interface, and get tokens; API exposing functions ask whom to trust.
//!
//! Start from [`Config`] and [`start`]; [`Running`] is the function at work. What it answers, and when, is
//! `docs/reference/capif.md`. Its clients are [`sbi::capif::invoker::Invoker`] and [`sbi::capif::aef::ExposingFunction`].

mod apis;
mod authority;
mod config;
mod events;
mod grants;
mod invokers;
mod logs;
mod notifier;
mod patch;
mod policies;
mod providers;
mod public_key;
mod reconcile;
mod running;
mod security;
mod service;
mod state;
mod tokens;

pub use config::{
    AuthorityFiles, Config, OnboardingCredential, PolicyFile, RegistrationCredential, TableLimits, TimeRange,
};
pub use public_key::{InvalidSubjectKey, SubjectKey};
pub use running::{Running, start};

/// SupportedFeatures (TS 29.571): none of the optional features of TS 29.222 is.
const NO_FEATURES: &str = "0";
