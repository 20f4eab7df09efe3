"""`python -m calib_nb` is the command `calib_nb`."""
from calib_nb.command_line import main

main(prog_name="calib_nb")
