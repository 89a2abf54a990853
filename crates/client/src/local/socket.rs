//! The socket's file: made with its permissions from the first moment, replaced if nobody serves it any more, removed in
//! the end.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::UnixListener;

use crate::error::ClientError;

/// Who may connect to the socket, by its file's permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketAccess {
    /// Programs of the same user: mode 0600.
    #[default]
    Owner,
    /// Programs of the same group, too: mode 0660.
    Group,
}

impl SocketAccess {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }
}

/// A bound socket, whose file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    /// Device and inode of the file that is ours.
    identity: (u64, u64),
}

impl Socket {
    /// Binds `path`. A socket there that nobody serves is left over from a crash and is replaced; anything else is not
    /// touched.
    pub(super) fn bind(path: &Path, access: SocketAccess) -> Result<Self, ClientError> {
        let failed = |source| ClientError::State { path: path.to_owned(), source: Arc::new(source) };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket")));
            }
            Ok(_) if is_served(path) => return Err(ClientError::SocketInUse { path: path.to_owned() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let bound = bind_as(path, access.mode());
        let (listener, identity) = bound.map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), identity })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another one may have taken the place in the meantime.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds under another name, sets the permissions, and only then gives the socket its name: nobody whom the permissions
/// keep out can have connected before.
fn bind_as(path: &Path, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    // Left over from a process that had the same number.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    let named = fs::set_permissions(&temporary, Permissions::from_mode(mode))
        .and_then(|()| identity(&temporary))
        .and_then(|identity| fs::rename(&temporary, path).map(|()| identity));
    if named.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    Ok((listener, named?))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether somebody listens. A socket whose process is gone refuses; one that may not be asked is somebody's.
fn is_served(path: &Path) -> bool {
    match StdUnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("apps.sock");
        let socket = Socket::bind(&path, SocketAccess::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(socket);
        assert!(!path.exists());
        let socket = Socket::bind(&path, SocketAccess::Group).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        drop(socket);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("apps.sock");
        // What a killed process leaves behind: a socket's file without a socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path, SocketAccess::Owner).unwrap();
        assert!(matches!(Socket::bind(&path, SocketAccess::Owner), Err(ClientError::SocketInUse { .. })));
        drop(socket);
        fs::write(&path, "somebody's file").unwrap();
        assert!(matches!(Socket::bind(&path, SocketAccess::Owner), Err(ClientError::State { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's file");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("apps.sock");
        let first = Socket::bind(&path, SocketAccess::Owner).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Socket::bind(&path, SocketAccess::Owner).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
