#!/bin/sh
set -e
case "$1" in
    -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ]; then
    shift
    # A first argument that is a file must stay first: redis reads it as its configuration.
    case "$1" in
        *.conf) conf=$1; shift; set -- "$conf" --protected-mode no "$@" ;;
        *) set -- --protected-mode no "$@" ;;
    esac
    set -- redis-server "$@"
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis '{}' +
        exec setpriv --reuid=redis --regid=redis --clear-groups -- "$@"
    fi
fi
exec "$@"
