/*
 * Error codes of the store and their names on the wire.
 *
 * Functions that can fail return 0 or one of these, never errno and never -1.
 * XS_EAGAIN..XS_EPERM travel to clients as text; the names are the protocol.
 */
#ifndef XS_ERR_H
#define XS_ERR_H

#include <stddef.h>

enum xs_error {
    XS_OK = 0,
    XS_EINVAL,
    XS_EACCES,
    XS_EEXIST,
    XS_EISDIR,
    XS_ENOENT,
    XS_ENOMEM,
    XS_ENOSPC,
    XS_EIO,
    XS_ENOTEMPTY,
    XS_ENOSYS,
    XS_EROFS,
    XS_EBUSY,
    XS_EAGAIN,
    XS_EISCONN,
    XS_E2BIG,
    XS_EPERM,
    XS_ERROR_COUNT
};

/* The wire name of an error ("ENOENT"). Anything out of range is "EINVAL". */
const char *xs_error_name(int error);

/* The error with this name, or XS_EINVAL when there is none: what clients do too. */
int xs_error_from_name(const char *name, size_t len);

#endif
