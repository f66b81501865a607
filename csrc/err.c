#include "err.h"

#include <string.h>

static const char *const names[XS_ERROR_COUNT] = {
    [XS_OK] = "OK",           [XS_EINVAL] = "EINVAL",
    [XS_EACCES] = "EACCES",   [XS_EEXIST] = "EEXIST",
    [XS_EISDIR] = "EISDIR",   [XS_ENOENT] = "ENOENT",
    [XS_ENOMEM] = "ENOMEM",   [XS_ENOSPC] = "ENOSPC",
    [XS_EIO] = "EIO",         [XS_ENOTEMPTY] = "ENOTEMPTY",
    [XS_ENOSYS] = "ENOSYS",   [XS_EROFS] = "EROFS",
    [XS_EBUSY] = "EBUSY",     [XS_EAGAIN] = "EAGAIN",
    [XS_EISCONN] = "EISCONN", [XS_E2BIG] = "E2BIG",
    [XS_EPERM] = "EPERM",
};

const char *xs_error_name(int error)
{
    if (error < 0 || error >= XS_ERROR_COUNT)
        error = XS_EINVAL;
    return names[error];
}

int xs_error_from_name(const char *name, size_t len)
{
    for (int i = 0; i < XS_ERROR_COUNT; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return i;
    return XS_EINVAL;
}
