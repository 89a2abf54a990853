//! MSGin5G Client (TS 23.554, 24.538): registers with AKMA, sends, receives each message once
