"""How every host of the fleet is reached."""

ssh_user = "operator"
ssh_strict_host_key_checking = "yes"

# The user need not be in the group docker: commands run with sudo.
_sudo = True
