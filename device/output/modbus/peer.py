# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
"""A Modbus device for tests, by pymodbus (Debian's python3-pymodbus): device 1 has coils
0 to 99, holding registers 0 to 99, input registers 0 to 99 with 1000 + n in them.

    peer.py tcp PORT | peer.py rtu /dev/TTY
"""
import sys

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartSerialServer, StartTcpServer
from pymodbus.transaction import ModbusRtuFramer

device = ModbusSlaveContext(
    co=ModbusSequentialDataBlock(0, [False] * 100),
    hr=ModbusSequentialDataBlock(0, [0] * 100),
    ir=ModbusSequentialDataBlock(0, [1000 + n for n in range(100)]),
    zero_mode=True,
)
context = ModbusServerContext(slaves={1: device}, single=False)
if sys.argv[1] == "tcp":
    StartTcpServer(context=context, address=("127.0.0.1", int(sys.argv[2])))
else:
    StartSerialServer(context=context, framer=ModbusRtuFramer, port=sys.argv[2], baudrate=19200, parity="N", timeout=0.05)
