//! Durable state: registrations, stored messages and tables, with group commit
